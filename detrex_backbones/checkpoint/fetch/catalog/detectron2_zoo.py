"""detectron2's detectors: what its model zoo lists. The hexadecimal part of a name is the beginning of its md5."""

from __future__ import annotations

__all__ = ["ZOO"]

# folder -> rows: name, number of the run, md5.
ZOO: dict[str, tuple[tuple[str, int, str], ...]] = {
    "COCO-Detection": (
        ("fast_rcnn_R_50_FPN_1x", 137635226, "e5f7ce"),
        ("faster_rcnn_R_101_C4_3x", 138204752, "298dad"),
        ("faster_rcnn_R_101_DC5_3x", 138204841, "3e0943"),
        ("faster_rcnn_R_101_FPN_3x", 137851257, "f6e8b1"),
        ("faster_rcnn_R_50_C4_1x", 137257644, "721ade"),
        ("faster_rcnn_R_50_C4_3x", 137849393, "f97cb7"),
        ("faster_rcnn_R_50_DC5_1x", 137847829, "51d356"),
        ("faster_rcnn_R_50_DC5_3x", 137849425, "68d202"),
        ("faster_rcnn_R_50_FPN_1x", 137257794, "b275ba"),
        ("faster_rcnn_R_50_FPN_3x", 137849458, "280758"),
        ("faster_rcnn_X_101_32x8d_FPN_3x", 139173657, "68b088"),
        ("retinanet_R_101_FPN_3x", 190397697, "971ab9"),
        ("retinanet_R_50_FPN_1x", 190397773, "bfca0b"),
        ("retinanet_R_50_FPN_3x", 190397829, "5bd44e"),
        ("rpn_R_50_C4_1x", 137258005, "450694"),
        ("rpn_R_50_FPN_1x", 137258492, "02ce48"),
    ),
    "COCO-InstanceSegmentation": (
        ("mask_rcnn_R_101_C4_3x", 138363239, "a2914c"),
        ("mask_rcnn_R_101_DC5_3x", 138363294, "0464b7"),
        ("mask_rcnn_R_101_FPN_3x", 138205316, "a3ec72"),
        ("mask_rcnn_R_50_C4_1x", 137259246, "9243eb"),
        ("mask_rcnn_R_50_C4_3x", 137849525, "4ce675"),
        ("mask_rcnn_R_50_DC5_1x", 137260150, "4f86c3"),
        ("mask_rcnn_R_50_DC5_3x", 137849551, "84107b"),
        ("mask_rcnn_R_50_FPN_1x", 137260431, "a54504"),
        ("mask_rcnn_R_50_FPN_3x", 137849600, "f10217"),
        ("mask_rcnn_X_101_32x8d_FPN_3x", 139653917, "2d9806"),
    ),
    "COCO-Keypoints": (
        ("keypoint_rcnn_R_101_FPN_3x", 138363331, "997cc7"),
        ("keypoint_rcnn_R_50_FPN_1x", 137261548, "04e291"),
        ("keypoint_rcnn_R_50_FPN_3x", 137849621, "a6e10b"),
        ("keypoint_rcnn_X_101_32x8d_FPN_3x", 139686956, "5ad38f"),
    ),
    "COCO-PanopticSegmentation": (
        ("panoptic_fpn_R_101_3x", 139514519, "cafdb1"),
        ("panoptic_fpn_R_50_1x", 139514544, "dbfeb4"),
        ("panoptic_fpn_R_50_3x", 139514569, "c10459"),
    ),
    "Cityscapes": (("mask_rcnn_R_50_FPN", 142423278, "af9cf5"),),
    "LVISv0.5-InstanceSegmentation": (
        ("mask_rcnn_R_101_FPN_1x", 144219035, "824ab5"),
        ("mask_rcnn_R_50_FPN_1x", 144219072, "571f7c"),
        ("mask_rcnn_X_101_32x8d_FPN_1x", 144219108, "5e3439"),
    ),
    "Misc": (
        ("cascade_mask_rcnn_R_50_FPN_1x", 138602847, "e9d89b"),
        ("cascade_mask_rcnn_R_50_FPN_3x", 144998488, "480dd8"),
        ("mask_rcnn_R_50_FPN_1x_dconv_c3-c5", 138602867, "65c703"),
        ("mask_rcnn_R_50_FPN_3x_dconv_c3-c5", 144998336, "821d0b"),
        ("mask_rcnn_R_50_FPN_3x_gn", 138602888, "dc5d9e"),
        ("mask_rcnn_R_50_FPN_3x_syncbn", 169527823, "3b3c51"),
        ("panoptic_fpn_R_101_dconv_cascade_gn_3x", 139797668, "be35db"),
        ("scratch_mask_rcnn_R_50_FPN_3x_gn", 138602908, "01ca85"),
        ("scratch_mask_rcnn_R_50_FPN_9x_gn", 183808979, "da7b4c"),
        ("scratch_mask_rcnn_R_50_FPN_9x_syncbn", 184226666, "5ce33e"),
    ),
    "PascalVOC-Detection": (("faster_rcnn_R_50_C4", 142202221, "b1acc2"),),
    "new_baselines": (
        ("mask_rcnn_R_101_FPN_100ep_LSJ", 42025812, "4f7b58"),
        ("mask_rcnn_R_101_FPN_200ep_LSJ", 42131867, "0bb7ae"),
        ("mask_rcnn_R_101_FPN_400ep_LSJ", 42073830, "f96b26"),
        ("mask_rcnn_R_50_FPN_100ep_LSJ", 42047764, "bb69de"),
        ("mask_rcnn_R_50_FPN_200ep_LSJ", 42047638, "89a8d3"),
        ("mask_rcnn_R_50_FPN_400ep_LSJ", 42019571, "14d201"),
        ("mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ", 42047771, "b7fbab"),
        ("mask_rcnn_regnetx_4gf_dds_FPN_200ep_LSJ", 42132721, "5d87c1"),
        ("mask_rcnn_regnetx_4gf_dds_FPN_400ep_LSJ", 42025447, "f1362d"),
        ("mask_rcnn_regnety_4gf_dds_FPN_100ep_LSJ", 42047784, "6ba57e"),
        ("mask_rcnn_regnety_4gf_dds_FPN_200ep_LSJ", 42047642, "27b9c1"),
        ("mask_rcnn_regnety_4gf_dds_FPN_400ep_LSJ", 42045954, "ef3a80"),
    ),
}
