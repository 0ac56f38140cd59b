"""Bundles: hostile ones are refused with one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bkcodec.bundle import Bundle, find_bundle, load_bundle
from bkcodec.codec import Codec
from bkcodec.coding.assembly import load_model
from bkcodec.errors import UnsupportedError


@pytest.mark.parametrize(
    "fault",
    [
        "stride text",
        "stride 17",
        "nested",
        "parts",
        "levels",
        "channels",
        "float lengths",
        "flat low",
        "nan step",
        "nan weight",
        "model type",
    ],
)
def test_hostile_bundles(tmp_path: Path, fault: str) -> None:

    lite: Bundle = load_bundle(find_bundle("lite"))
    header, networks = dict(lite.header), dict(lite.networks)
    first = lite.prior.first  # type: ignore[union-attr]
    tables = {k: getattr(first, k) for k in ("lengths", "low", "weights")}
    changes: dict[str, dict[str, object]] = {
        "stride text": {"stride": "16"},
        "stride 17": {"stride": 17},
        "parts": {"parts": None},
        "model type": {"model": {**header["model"], "M": "many"}},
    }
    header |= changes.get(fault, {})
    if fault == "levels":
        n = int(tables["lengths"][:5].sum())
        tables = {
            "lengths": tables["lengths"][:5],
            "low": tables["low"][:5],
            "weights": tables["weights"][:n],
        }
    if fault == "channels":
        tables = {
            "lengths": np.ones((201, 3), np.uint16),
            "low": np.zeros((201, 3), np.int16),
            "weights": np.zeros(603, np.uint16),
        }
    if fault == "float lengths":
        tables["lengths"] = tables["lengths"].astype(np.float32)
    if fault == "flat low":
        tables["low"] = tables["low"].ravel()
    if fault == "nan step":
        networks["quantiser.log_step"] = networks["quantiser.log_step"] * np.nan
    if fault == "nan weight":
        networks["embedding.table"] = networks["embedding.table"] * np.nan
    text = "[" * 200_000 if fault == "nested" else json.dumps(header)
    path = tmp_path / "bad.safetensors"
    arrays = {f"net.{k}": v for k, v in networks.items()} | lite.prior.bundled()
    arrays |= {f"tables.{k}": v for k, v in tables.items()}
    arrays |= {f"int.{k}": v for k, v in lite.integers.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, {"bkcodec": text})
    with pytest.raises(UnsupportedError):
        load_model(path, "cpu")


def test_a_bundle_is_what_its_file_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lite = load_bundle(find_bundle("lite"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with safe_open(lite.path, "np") as file:
            arrays = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            header = json.loads(file.metadata()["bkcodec"])
        text = json.dumps({**header, "name": name})
        save_file(arrays, tmp_path / name / "m.safetensors", {"bkcodec": text})
    names = []
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        names.append(Codec("m.safetensors").bundle.name)
    (tmp_path / "a" / "m.safetensors").replace("m.safetensors")
    names.append(Codec("m.safetensors").bundle.name)
    assert names == ["a", "b", "a"]
