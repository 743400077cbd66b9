"""The names of all naming conventions, for help texts, which appear without torch. A test compares them."""

import textwrap

__all__ = ["SOURCE_NAMES", "source_names_text"]

SOURCE_NAMES = tuple(
    """
    barlowtwins cadene caffe2 conditional-detr convnext deformable-detr densecl detectron detectron-gn
    detectron2 detectron2-resnest detr detrex detrex-torchvision dino dn-deformable-detr
    efficientnet-pytorch eva02 focalnet gluon gluon-se gluon-v1c huggingface huggingface-beit
    huggingface-bit huggingface-convnext huggingface-detr huggingface-dinov2 huggingface-dinov3
    huggingface-dinov3-convnext huggingface-dinov3-gated huggingface-efficientnet huggingface-focalnet
    huggingface-hgnetv2 huggingface-hiera huggingface-lw-detr huggingface-maskformer-swin
    huggingface-mobilenet-v2 huggingface-pp-lcnet huggingface-pvt-v2 huggingface-rf-detr huggingface-rtdetr
    huggingface-sam2-hiera huggingface-swin huggingface-swinv2 huggingface-vitdet internimage
    maskrcnn-benchmark mmdet mmdet-darknet mmdet-efficientnet mmdet-gn mmdet-mobilenet-v2 mmdet-pvt
    mmdet-pvt-v2 mmdet-regnet mmdet-res2net mmdet-resnest mmdet-ssd mmdet-swin mmdet-v1c mmpretrain
    mmpretrain-resnest mmpretrain-se mmpretrain-v1c moco msra mvitv2 pycls pycls-resnet resnest rtdetr
    segmentation-models-pytorch swav swin timm timm-darknet timm-efficientnet timm-hrnet timm-regnet
    timm-resnest torchvision torchvision-convnext torchvision-densenet torchvision-detection
    torchvision-efficientnet torchvision-efficientnet-v2 torchvision-efficientnet-v2-s torchvision-mobilenet
    torchvision-mobilenet-v2 torchvision-mobilenet-v3-large torchvision-mobilenet-v3-small
    torchvision-regnet torchvision-swin torchvision-swinv2 transformers vit yolox
    """.split()  # noqa: SIM905
)


def source_names_text() -> str:
    """The names as a paragraph of 80 columns."""
    names = ", ".join(("as stored", "original", *SOURCE_NAMES))
    return textwrap.fill(f"naming conventions: {names}", 78, subsequent_indent="  ", break_on_hyphens=False) + "\n"
