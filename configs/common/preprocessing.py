"""What images are turned into before they reach a network: part of its weights, on the 0-255 scale."""

# torchvision, timm's ResNets, DETR: RGB, ImageNet's mean and standard deviation.
imagenet_rgb = dict(
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    input_format="RGB",
)

# Caffe2, pycls and OpenMMLab's RegNetX: the same numbers, for BGR.
caffe2_bgr = dict(
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[57.375, 57.120, 58.395],
    input_format="BGR",
)

# OpenMMLab's SSD: the mean alone.
ssd_rgb = dict(
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="RGB",
)

# YOLOv3: from 0-255 to 0-1.
yolo_rgb = dict(
    pixel_mean=[0.0, 0.0, 0.0],
    pixel_std=[255.0, 255.0, 255.0],
    input_format="RGB",
)

# YOLOX: pixels as they are.
yolox_bgr = dict(
    pixel_mean=[0.0, 0.0, 0.0],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)
