"""The REST signature, against the documents' own vector and computed ones."""

import pytest

from ecoflow_push.api.signing import signature, signed_headers

OWN = {
    "access_key": "AKexample0000000000000000000001",
    "secret_key": "SKexample0000000000000000000002",
}
SN = "R331ZFAKE0000001"


def test_the_official_vector():
    """The vector of EcoFlow's documents comes out."""
    params = {"sn": "123456789", "params": {"cmdSet": 11, "id": 24, "eps": 0}}

    sign = signature(
        params,
        access_key="Fp4SvIprYSDPXtYJidEtUAd1o",
        secret_key="WIbFEKre0s6sLnh4ei7SPUeYnptHG6V",
        nonce="345164",
        timestamp_ms="1671171709428",
    )

    assert sign == "07c13b65e037faf3b153d51613638fa80003c4c38d2407379a7f52851af1473e"


@pytest.mark.parametrize(
    ("params", "nonce", "timestamp_ms", "sign"),
    [
        pytest.param(
            {},
            "123456",
            "1700000000000",
            "f34b4b19c88d096f78cb2067e55c2dd22de79dfd9afe004848e4b324b0bd31eb",
            id="V1",
        ),
        pytest.param(
            {"sn": SN},
            "123456",
            "1700000000000",
            "ddd339e856ce09fb10e2f18c2be117c9723ba1b56c9262d3f7c4d3fccf0efeb5",
            id="V2",
        ),
        pytest.param(
            {"sn": SN, "params": {"quotas": ["pd.soc", "inv.inputWatts"]}},
            "654321",
            "1700000000123",
            "1270f12f7a4dae7ecf513d1be42bcc98474a3a715366db53311dde606efc9e3f",
            id="V3",
        ),
        pytest.param(
            {
                "sn": SN,
                "flag": True,
                "list": list(range(11)),
                "o": [{"b": 2, "a": 1}],
                "Z": "x y&z",
            },
            "000042",
            "1700000000999",
            "267060b66f4cc24ba6065117d4339e5c193eb1ee5b94fdab395f2972ca5009ce",
            id="V4",
        ),
    ],
)
def test_computed_vectors(params, nonce, timestamp_ms, sign):
    """Nested, listed, boolean and unencoded parameters are signed in ASCII order."""
    headers = signed_headers(params, nonce=nonce, timestamp_ms=timestamp_ms, **OWN)

    assert headers == {
        "accessKey": OWN["access_key"],
        "nonce": nonce,
        "timestamp": timestamp_ms,
        "sign": sign,
    }
