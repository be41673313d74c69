"""How errors read: a package that is missing is one of ours."""

import pytest

from videomae.errors import MissingPackageError, VideoMAEError
from videomae.packages import require


def test_a_missing_package_is_an_error_of_ours_that_says_what_to_install():
    with pytest.raises(
        MissingPackageError, match=r"needs snow, which is not .*pip install 'videomae\[ski\]'\."
    ) as error:
        require("no_such_package", extra="ski", purpose="skiing needs snow")
    assert isinstance(error.value, VideoMAEError)
    assert isinstance(error.value, ImportError)
    require("json", extra="ski", purpose="skiing needs snow")
