"""From a name to a file on this machine: the catalogue of published weights, the Hugging Face hub, and downloads."""

from detrex_backbones.cache import cache_folder
from detrex_backbones.checkpoint.fetch.catalog import (
    SOURCES,
    Preprocessing,
    Recipe,
    Weight,
    find_known,
    find_weight,
    list_weights,
)
from detrex_backbones.checkpoint.fetch.http_file import Patience, cache_path, download, hash_in_name
from detrex_backbones.checkpoint.fetch.local_file import fetch_image, resolve

__all__ = [
    "SOURCES",
    "Patience",
    "Preprocessing",
    "Recipe",
    "Weight",
    "cache_folder",
    "cache_path",
    "download",
    "fetch_image",
    "find_known",
    "find_weight",
    "hash_in_name",
    "list_weights",
    "resolve",
]
