"""Package metadata: one pure-Python wheel, with the ready configs of `configs/` inside."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
CONFIGS = "detrex_backbones.configs"

# The configs stand at top level, where people look for them, and are installed inside the package, where
# `get_config` finds them. They are data that is read by path: the folders hold no __init__.py.
config_folders = sorted({path.parent.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.py")})
config_packages = {".".join([CONFIGS, *folder.parts[1:]]): folder.as_posix() for folder in config_folders}

TRAIN = [
    "pycocotools>=2.0.7",
    "tensorboard>=2.14",
]

TEST = [
    *TRAIN,
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "ruff>=0.6",
    "mypy>=1.11",
    "types-PyYAML",
    "torchao>=0.12",  # int8, of the table of exports
    "pyarrow>=15",  # vectors as Parquet
    "isal>=1.6",  # checksums
    "argcomplete>=3",  # shells ask through it
    *("ipython>=8.20", "ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.9"),  # run the notebook of the examples
    "transformers>=5",  # its ResNet and DETR write files that the loader is proved on
    "playwright>=1.40",  # drives a Chromium that the machine has
    # A server that speaks S3, and its client. Without bounds, so that the lowest versions are tested without them:
    # s3fs, fsspec and botocore fit one another in a few versions only.
    "s3fs",
    "moto[s3]",
    "flask",
    "flask-cors",
]

# torch's ONNX exporter, and what the files are checked with.
EXPORT = ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"]

setup(
    name="detrex-backbones",
    version="0.1.0",
    description="Lazy-config detection backbones and a checkpoint loader that proves what it loaded",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["detrex_backbones", "detrex_backbones.*"]), *config_packages],
    package_dir=config_packages,
    package_data={
        "": ["*.pyi"],
        "detrex_backbones": ["py.typed"],
        "detrex_backbones.checkpoint.fetch.catalog": ["*.csv", "tables/*.json.gz"],
        "detrex_backbones.view": ["*.html"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "timm>=1.0.21",
        "fvcore>=0.1.5.post20221221",
        "omegaconf>=2.3,<2.5",
        "PyYAML>=6",
        "cloudpickle>=3",
        "safetensors>=0.4.3",
        "numpy>=1.26",
        "filelock>=3.13",
        "huggingface_hub>=0.25",
        "requests>=2.32",
        "tqdm>=4.66",
        "rich>=13",
        "matplotlib>=3.8",
    ],
    extras_require={
        "test": [*TEST, *EXPORT],
        "train": TRAIN,  # what `examples/train_detector` takes beyond the rest
        "export": EXPORT,
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "parquet": ["pyarrow>=15"],  # vectors as tables
        "ray": ["ray[data]>=2.9", "pyarrow>=15"],  # features on many machines
        "remote": ["s3fs", "gcsfs"],  # s3:// and gs://; hf:// needs nothing more
        "completion": ["argcomplete>=3"],  # of the shell
        "fast": ["isal>=1.6"],  # checksums of .pth files in a quarter of the time
        # The pictures need nothing beyond the ordinary install; the name is kept for requirement files.
        "plots": ["matplotlib>=3.8"],
        # detectron2 itself is on no package index: these are what a checkout of it imports.
        "detectron2": ["pycocotools", "tensorboard", "hydra-core", "black", "setuptools<81"],
    },
    entry_points={"console_scripts": ["detrex-backbones = detrex_backbones.cli:command"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
