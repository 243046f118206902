"""A phone that is a program, behind the real adb client."""

import pytest

from tests.tflite_export.bench.fake_adbd import FakePhone, adb_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with adb_server(tmp_path_factory.mktemp("home")):
        yield


@pytest.fixture
def phone(server, tmp_path):
    with FakePhone(tmp_path) as made:
        made.connect()
        yield made
