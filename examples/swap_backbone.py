"""One config, four backbones: what changes is one call, or on the command line the override backbone=NAME.

python examples/swap_backbone.py
"""

from detrex_backbones import get_config, instantiate, swap_backbone


def main() -> None:
    for name in ("resnet101-dc5", "gluon/resnet50_v1d", "timm/convnext_tiny", "timm/vit_tiny_patch16_224"):
        cfg = get_config("resnet/resnet50.py")
        print(name)
        for change in swap_backbone(cfg, name):
            print(f"    {change}")
        shapes = instantiate(cfg.model).output_shape()
        maps = ", ".join(f"{key}: {shape.channels} channels at stride {shape.stride}" for key, shape in shapes.items())
        print(f"    {maps}\n")


if __name__ == "__main__":
    main()
