"""Segmentation networks as models for certification: any module, smp, MONAI, transformers, the own small U-Net."""

from certimed.segmenters.adapter import OUTPUT_NAMES, SegmentationModel, SlidingWindow, from_module
from certimed.segmenters.loading import load_segmenter
from certimed.segmenters.monai import monai_bundle
from certimed.segmenters.native import NativeSegmenter, mask_geometry
from certimed.segmenters.sam import PromptedSegmenter, sam_segmenter
from certimed.segmenters.small_unet import SmallUNet, load_small_unet
from certimed.segmenters.smp import smp_checkpoint, smp_folder
from certimed.segmenters.transformers import transformers_segmenter

__all__ = [
    "OUTPUT_NAMES",
    "NativeSegmenter",
    "PromptedSegmenter",
    "SegmentationModel",
    "SlidingWindow",
    "SmallUNet",
    "from_module",
    "load_segmenter",
    "load_small_unet",
    "mask_geometry",
    "monai_bundle",
    "sam_segmenter",
    "smp_checkpoint",
    "smp_folder",
    "transformers_segmenter",
]
