"""Vectors of the images of a folder or a bucket, on a Ray cluster, into Parquet.

    pip install 'detrex-backbones[ray]'
    python examples/features_on_ray.py photos/ vectors/ --config resnet/resnet50 \\
        train.init_checkpoint=torchvision://resnet50-v2
    python examples/features_on_ray.py s3://bucket/photos s3://bucket/vectors --workers 8 --gpus 1

Ray starts a cluster on this machine where none is named by RAY_ADDRESS, gives the images of a worker that dies to
another, and writes each image once.
"""

from __future__ import annotations

import argparse

import ray

from detrex_backbones.features import ImageFeatures


def main() -> None:
    """Read, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder, or s3:// and the like")
    parser.add_argument("output", help="a folder of Parquet files, of the same kinds")
    parser.add_argument("overrides", nargs="*", help="key=value of the config")
    parser.add_argument("--config", default="resnet/resnet50")
    parser.add_argument("--maps", default="res5", help="res4,res5")
    parser.add_argument("--workers", type=int, default=2, help="at most one fewer than there are CPUs (default: 2)")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    ray.init(ignore_reinit_error=True)
    # A CPU is left to read the images: where workers hold all of them, they wait for images forever.
    workers = max(1, min(args.workers, int(ray.cluster_resources()["CPU"]) - 1))
    images = ray.data.read_binary_files(
        args.images, include_paths=True, file_extensions=["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"]
    )
    vectors = images.map_batches(
        ImageFeatures,
        fn_constructor_kwargs={"config": args.config, "overrides": args.overrides, "maps": args.maps.split(",")},
        batch_size=args.batch_size,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=args.gpus or None,
    )
    vectors.write_parquet(args.output)


if __name__ == "__main__":
    main()
