import pytest

# Their asserts shall say what they saw, as those of the test files do.
pytest.register_assert_rewrite("tests.reference", "tests.backbones.contract")
