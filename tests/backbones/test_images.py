import io
import math
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from detrex_backbones.backbones.images.tensors import image_to_tensor, read_image
from detrex_backbones.errors import InputError

HEIGHT, WIDTH = 5, 7


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def as_chw(array: np.ndarray) -> torch.Tensor:
    """What is expected of (H, W) or (H, W, C)."""
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array.transpose(2, 0, 1).astype(np.float32))


class TestLayouts:
    def test_an_array_is_height_width_channels(self, rgb):
        assert torch.equal(image_to_tensor(rgb, 3), as_chw(rgb))

    def test_a_tensor_is_channels_height_width(self, rgb):
        assert torch.equal(image_to_tensor(torch.from_numpy(rgb.transpose(2, 0, 1).copy()), 3), as_chw(rgb))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_two_dimensions_are_grey_and_repeated_where_three_are_wanted(self, rgb, channels):
        expected = as_chw(rgb[..., 0]).expand(channels, -1, -1)
        assert torch.equal(image_to_tensor(rgb[..., 0], channels), expected)
        assert torch.equal(image_to_tensor(torch.from_numpy(rgb[..., 0].copy()), channels), expected)

    def test_alpha_is_dropped_unless_four_channels_are_wanted(self):
        rgba = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
        assert torch.equal(image_to_tensor(rgba, 3), as_chw(rgba[..., :3]))
        assert torch.equal(image_to_tensor(rgba, 4), as_chw(rgba))
        assert torch.equal(image_to_tensor(rgba[..., :2], 3), as_chw(rgba[..., :1]).expand(3, -1, -1))

    def test_flipped_and_read_only_arrays_are_taken(self, rgb):
        flipped = rgb[:, ::-1]
        assert torch.equal(image_to_tensor(flipped, 3), as_chw(flipped))
        rgb.setflags(write=False)
        assert torch.equal(image_to_tensor(rgb, 3), as_chw(rgb))


class TestDtypes:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
    def test_floats_are_0_to_255(self, rgb, dtype):
        assert torch.equal(image_to_tensor(rgb.astype(dtype), 3), as_chw(rgb))

    def test_sixteen_bits_are_scaled_to_0_to_255(self, rgb):
        wide = rgb.astype(np.uint16) * 257  # 65535 = 255 * 257
        torch.testing.assert_close(image_to_tensor(wide, 3), as_chw(rgb))
        torch.testing.assert_close(image_to_tensor(torch.from_numpy(wide.transpose(2, 0, 1).copy()), 3), as_chw(rgb))

    @pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, np.object_, np.str_])
    def test_others_are_errors(self, rgb, dtype):
        with pytest.raises(InputError, match=r"dtype.*uint8 \(0-255\), uint16 \(0-65535\), float \(0-255\)"):
            image_to_tensor(rgb.astype(dtype), 3)

    def test_a_float_image_from_0_to_1_warns(self, rgb):
        with pytest.warns(UserWarning, match="no value above 1.*Multiply it by 255"):
            image_to_tensor(rgb / 255, 3)

    def test_a_black_float_image_does_not_warn(self, rgb):
        assert not image_to_tensor(np.zeros_like(rgb, dtype=np.float32), 3).any()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_none_are_an_error(self, rgb, value):
        image = rgb.astype(np.float32)
        image[2, 3, 1] = value
        with pytest.raises(InputError, match="NaN or infinite"):
            image_to_tensor(image, 3)


class TestPillow:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
    def test_every_mode_of_eight_bits_is_what_pillow_shows(self, rgb, mode):
        source = Image.fromarray(rgb)
        if mode in ("1", "L", "LA", "La", "P", "PA"):
            source = source.convert("L")
        elif mode in ("RGBA", "RGBa"):
            source.putalpha(255)
        image = source.convert("LA" if mode == "La" else mode)
        image = image.convert("La") if mode == "La" else image
        shown = image.convert("LA") if mode == "La" else image
        expected = as_chw(np.asarray(shown.convert("L" if mode == "1" else "RGB")))
        assert torch.equal(image_to_tensor(image, 3), expected.expand(3, -1, -1))

    @pytest.mark.parametrize("mode", ["I;16", "I"])
    def test_sixteen_bits_are_scaled(self, rgb, mode):
        grey = rgb[..., 0].astype(np.uint16) * 257
        image = Image.fromarray(grey).convert(mode) if mode == "I" else Image.fromarray(grey)
        assert image.mode == mode
        torch.testing.assert_close(image_to_tensor(image, 3), as_chw(rgb[..., 0]).expand(3, -1, -1))

    def test_floats_are_kept(self, rgb):
        image = Image.fromarray(rgb[..., 0].astype(np.float32))
        assert image.mode == "F"
        assert torch.equal(image_to_tensor(image, 1), as_chw(rgb[..., 0]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("photo.jpg", "is a str.*read_image"),
        (None, "is a NoneType"),
        ([[1, 2], [3, 4]], "is a list"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((1, 1, 5, 5), np.uint8), r"shape \(1, 1, 5, 5\)"),
        (torch.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 5, 3), np.uint8), "is empty"),
        (np.zeros((3, 50, 70), np.uint8), "has 70 channels, the network takes 3.*first dimension fits"),
        (torch.zeros(50, 70, 3), "has 50 channels, the network takes 3.*last dimension fits"),
        (np.zeros((50, 70, 5), np.uint8), "has 5 channels, the network takes 3"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_an_error_that_says_what_is(image, message):
    with pytest.raises(InputError, match=message):
        image_to_tensor(image, 3)


class TestReadImage:
    def test_turns_a_photo_upright(self, tmp_path, rgb):
        path = tmp_path / "photo.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn a quarter clockwise to show
        Image.fromarray(rgb).save(path, exif=exif, quality=100, subsampling=0)
        stored = np.asarray(Image.open(path))
        assert stored.shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(read_image(path), np.rot90(stored, k=-1))

    @pytest.mark.parametrize(
        ("bands", "shape"), [(1, (HEIGHT, WIDTH)), (2, (HEIGHT, WIDTH, 2)), (4, (HEIGHT, WIDTH, 4))]
    )
    def test_keeps_grey_and_alpha(self, tmp_path, bands, shape):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "image.png")
        assert np.array_equal(read_image(str(tmp_path / "image.png")), array)

    def test_keeps_sixteen_bits(self, tmp_path):
        array = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
        Image.fromarray(array).save(tmp_path / "image.png")
        read = read_image(tmp_path / "image.png")
        assert read.dtype == np.uint16
        assert np.array_equal(read, array)

    def test_a_missing_file_and_a_folder_are_errors(self, tmp_path):
        with pytest.raises(InputError, match=r"nowhere.png' does not exist"):
            read_image(tmp_path / "nowhere.png")
        with pytest.raises(InputError, match="is a folder"):
            read_image(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"no image at all\n" * 50], ids=["empty", "text"])
    def test_a_file_that_is_no_image_is_an_error(self, tmp_path, content):
        path = tmp_path / "image.png"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"image\.png' can't be read as an image"):
            read_image(path)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "webp", "bmp"])
    def test_a_truncated_image_is_an_error(self, tmp_path, suffix):
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:600])
        with pytest.raises(InputError, match="can't be read as an image"):
            read_image(path)


def tiff_file(array, order):
    """A grey TIFF file of one strip, uncompressed; Pillow writes no unsigned 32 bits and no signed 8."""
    height, width = array.shape
    sign = {"u": 1, "i": 2}[array.dtype.kind]
    fields = {256: width, 257: height, 258: array.dtype.itemsize * 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: height}
    fields |= {279: array.nbytes, 339: sign}
    fields[273] = 8 + 2 + 12 * len(fields) + 4
    table = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    return start + table + bytes(4) + array.tobytes()


class TestAsViewersShowIt:
    """What every viewer reads is read, and what isn't plain about it is said."""

    BROKEN = b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff"  # its table would begin behind its end

    @pytest.mark.parametrize("exif", [BROKEN, b"no TIFF at all", b"II*\x00\x08\x00\x00\x00\x05"])
    @pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
    def test_broken_exif_data_is_read_over(self, tmp_path, rgb, suffix, exif):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(rgb).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            image = read_image(path)
            assert np.array_equal(image, np.array(Image.open(path)))
        messages = [str(one.message) for one in said]  # ours, and Pillow's own where it reads on
        assert all(f"a.{suffix}': its EXIF data can't be read" in text or "Corrupt EXIF" in text for text in messages)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
    def test_every_orientation_is_turned_as_pillow_does(self, tmp_path, rgb, suffix, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(rgb).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        with Image.open(path) as opened:
            assert np.array_equal(read_image(path), np.array(ImageOps.exif_transpose(opened)))
        assert read_image(path).shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))

    @pytest.mark.parametrize("values", [[-32768, 0, 32767], [0, 2**30, 2**31 - 2], [-7, 0, 7], [65000, 65500, 66000]])
    def test_numbers_beyond_16_bits_are_scaled_and_said(self, tmp_path, values):
        path = tmp_path / "a.tiff"
        Image.fromarray(np.array([values], np.int32), "I").save(path)
        with pytest.warns(UserWarning, match=f"from {values[0]} to {values[2]}"):
            image = read_image(path)
        assert image.dtype == np.uint16 and image[0, [0, 2]].tolist() == [0, 65535]
        assert abs(int(image[0, 1]) - 32768) <= 1

    @pytest.mark.parametrize(
        ("dtype", "values"),
        [(np.uint32, [0, 2**31, 2**32 - 1]), (np.int8, [-128, 0, 127]), (np.int16, [-9, 0, 9]), (np.uint32, [0, 3, 7])],
    )
    @pytest.mark.parametrize("order", "<>")
    def test_tiff_files_say_whether_their_numbers_have_a_sign(self, tmp_path, dtype, values, order):
        if (order, dtype) == (">", np.uint32):  # which Pillow reads not at all
            order = "<"
        array = np.array([values], np.dtype(dtype).newbyteorder(order))
        (tmp_path / "a.tiff").write_bytes(tiff_file(array, order))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            image = read_image(tmp_path / "a.tiff")
        if values[2] == 7:
            assert image.tolist() == [values] and not said
        else:
            assert image[0, [0, 2]].tolist() == [0, 65535] and abs(int(image[0, 1]) - 32768) <= 200
            assert f"from {values[0]} to {values[2]}" in str(said[0].message)

    @pytest.mark.parametrize("values", [[0, 1, 65535], [3, 4, 5]])
    def test_32_bits_that_hold_16_are_kept(self, tmp_path, values):
        Image.fromarray(np.array([values], np.int32), "I").save(tmp_path / "a.tiff")
        assert read_image(tmp_path / "a.tiff").tolist() == [values]

    @pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
    def test_of_an_animation_the_first_frame_is_read_and_said(self, tmp_path, suffix):
        frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
        with pytest.warns(UserWarning, match="more than one frame: the first is read"):
            image = read_image(tmp_path / f"a.{suffix}")
        assert image.shape == (HEIGHT, WIDTH, 3) and (image == [255, 0, 0]).all()

    @pytest.mark.parametrize(
        ("mode", "suffix"), [("P", "png"), ("P", "tiff"), ("CMYK", "tiff"), ("CMYK", "jpg"), ("1", "tiff")]
    )
    def test_palettes_and_inks_are_shown_as_colours(self, tmp_path, rgb, mode, suffix):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(rgb).convert(mode).save(path)
        with Image.open(path) as opened:
            expected = np.array(opened.convert("L" if mode == "1" else "RGB"))
        assert np.array_equal(read_image(path), expected)

    @pytest.mark.parametrize("place", ["before", "after"])
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (b"gAMA", b"x"), (b"cHRM", b"ab"), (b"sRGB", b""), (b"pHYs", b"xx"), (b"tRNS", b"x"), (b"acTL", b"x"),
            (b"iCCP", b"broken"), (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**23))), (b"tIME", None), (b"tEXt", None),
        ],
    )  # fmt: skip
    def test_broken_chunks_that_viewers_do_without_are_read_over(self, tmp_path, rgb, name, content, place):
        """None: a checksum that is wrong."""
        content, wrong = (b"a\0b", 1) if content is None else (content, 0)
        chunk = struct.pack(">I", len(content)) + name + content
        chunk += struct.pack(">I", zlib.crc32(name + content) ^ wrong)
        Image.fromarray(rgb).save(tmp_path / "a.png")
        sound = (tmp_path / "a.png").read_bytes()
        at = sound.index(b"IDAT" if place == "before" else b"IEND") - 4
        (tmp_path / "a.png").write_bytes(sound[:at] + chunk + sound[at:])
        with pytest.warns(UserWarning, match=f"a.png': the PNG chunk {name.decode()} can't be read") as said:
            assert np.array_equal(read_image(tmp_path / "a.png"), rgb)
        assert len(said) == 1
        with pytest.warns(UserWarning, match="the image: the PNG chunk"):
            assert np.array_equal(read_image(io.BytesIO((tmp_path / "a.png").read_bytes())), rgb)

    @pytest.mark.parametrize(
        ("values", "shown", "told"),
        [
            ([0, 0.5, 1], [0, 127.5, 255], "from 0 to 1: .* 0 as black and 1 as white"),
            ([-3, 0, 3], [0, 127.5, 255], "from -3 to 3: .* -3 as black and 3 as white"),
            ([1000, 1500, 2000], [0, 127.5, 255], "from 1000 to 2000"),
            ([math.nan, 0, 200], [0, 0, 200], "from 0 to 200, and 1 that is NaN or infinite: .* 0 as black and 255"),
            ([-math.inf, 1, math.inf], [0, 255, 255], "and 2 that are NaN or infinite"),
            ([math.nan, math.nan, math.nan], [0, 0, 0], "and 3 that are NaN"),
            ([0, 7.5, 254.5], [0, 7.5, 254.5], None),
        ],
    )
    def test_floating_point_numbers_of_a_file_are_brightness(self, tmp_path, values, shown, told):
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tiff")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            image = read_image(tmp_path / "a.tiff")
            image_to_tensor(image, 3)
        np.testing.assert_allclose(image, [shown], rtol=1e-6)
        assert len(said) == (told is not None)
        assert told is None or re.search(told, str(said[0].message))

    @pytest.mark.parametrize("transparency", [3, bytes(range(256))])
    def test_a_palette_with_transparency_is_its_colours(self, tmp_path, rgb, transparency):
        image = Image.fromarray(rgb).convert("P")
        image.save(tmp_path / "a.png", transparency=transparency)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(read_image(tmp_path / "a.png"), np.array(image.convert("RGB")))
