"""One config, three backbones: what changes is an override.

python examples/swap_backbone.py
"""

from detrex_backbones import LazyConfig, get_config, instantiate


def main() -> None:
    for overrides in (
        [],
        ["model.backbone.stages.depth=18"],
        ["model.backbone.stages.res5_dilation=2", "model.backbone.stages.dilation_style=torchvision"],
    ):
        cfg = LazyConfig.apply_overrides(get_config("resnet/resnet50.py"), overrides)
        shapes = instantiate(cfg.model).output_shape()
        text = ", ".join(
            f"{name}: {shape.channels} channels at stride {shape.stride}" for name, shape in shapes.items()
        )
        print(f"{' '.join(overrides) or 'as it is'}\n    {text}")


if __name__ == "__main__":
    main()
