"""Write the tables of the installed torchvision and timm that are shipped with the package: a matter of minutes."""

from detrex_backbones.checkpoint.fetch.catalog import timm_shapes, timm_weights, torchvision_weights
from detrex_backbones.checkpoint.fetch.catalog.library_tables import SHIPPED, installed_version, write_table

if __name__ == "__main__":
    for library, module in (("torchvision", torchvision_weights), ("timm", timm_weights)):
        for old in SHIPPED.glob(f"{library}-*"):
            old.unlink()
        write_table(module.ask(), SHIPPED / f"{library}-{installed_version(library)}.json.gz")
    timm_shapes.write_shapes()
