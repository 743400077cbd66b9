"""What images are turned into before they reach a network: part of its weights, on the 0-255 scale."""

# torchvision, timm's ResNets, DETR: RGB, ImageNet's mean and standard deviation.
imagenet_rgb = dict(
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    input_format="RGB",
)
