"""OPC UA with certificates on both sides of a real gate: strangers are refused, told, and let in by a verb."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client
from asyncua.crypto import security_policies as policies

from cofferdam.protocols.opcua.trust import mark
from tests.gate.plant import cli, events, running, settle
from tests.ports import held_ports
from tests.protocols.opcua.certificates import Authority, make, sign
from tests.protocols.opcua.site import RULES, pki, plant, policy
from tests.waiting import PATIENT, eventually

ua: Any = types
LINE = "urn:plant:line"
CLIENTS = "[Basic256Sha256, Aes256_Sha256_RsaPss, Aes128_Sha256_RsaOaep, Basic256Sha256 sign]"
WHO = (
    "mes: {zone: office, addresses: [127.0.0.1], application: 'urn:mes'}",
    "anna: {zone: office, addresses: [127.0.0.1], user: anna}",
)
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class Site:
    """A gate, a plant and a client's key."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.policy = folder / "policy.yaml"
        self.port = port
        self.restart: Callable[[Path], None] = lambda _keys: None
        """Has the plant's server start anew with another key."""

    def pki(self, *words: str) -> Any:
        code, said, error = pki(*words, "--policy", self.policy, "--state", self.state, "--json")
        assert code == 0, error
        return json.loads(said)

    def ask(
        self, work: Callable[[Any], Coroutine[Any, Any, Any]], kind: str = "Basic256Sha256", mode: int = 3,
        who: str = "mes", login: tuple[str, str] = ("", ""), user: str = "", key: str = "", keys: str = "",
    ) -> Any:  # fmt: skip
        """What `work` finds out with a secured client. `user`: whose certificate it shows, `key` with whose key."""

        async def main() -> Any:
            client = Client(f"opc.tcp://127.0.0.1:{self.port}", timeout=PATIENT)
            client.application_uri = f"urn:{who}"
            own = self.folder / (keys or who)
            await client.set_security(
                getattr(policies, f"SecurityPolicy{kind.replace('_', '')}"),
                str(own / "own.der"), str(own / "own.pem"),
                server_certificate=str(self.folder / "ours" / "server.der"), mode=ua.MessageSecurityMode(mode),
            )  # fmt: skip
            if login[0]:
                client.set_user(login[0])
                client.set_password(login[1])
            if user:
                await client.load_client_certificate(str(self.folder / user / "own.der"))
                await client.load_private_key(self.folder / (key or user) / "own.pem")
            async with client:
                return await work(client)

        return asyncio.run(main())


async def speed(client: Any) -> Any:
    index = (await client.get_namespace_array()).index(LINE)
    return client.get_node(ua.NodeId("Line1.Speed", index))


async def read(client: Any) -> Any:
    return await (await speed(client)).read_value()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("opcua")
    plant_port, port = held_ports(2)
    found = Site(folder, port)
    security = f"{{clients: {CLIENTS}, asset: Aes256_Sha256_RsaPss, server: 'urn:plant:server'}}"
    annas = "{who: anna, asset: filler, read: [speed], write: [speed]}"
    found.policy.write_text(policy(plant_port, port, RULES, annas, security=security, who=WHO))
    for name in ("mes", "stranger"):
        make(folder / name, f"urn:{name}")
    keys = make(folder / "plant", "urn:plant:server")
    made = found.pki("new")
    assert {name.rpartition("/")[2] for name in made} == {"outer", "inner"}
    exported = found.pki("export", str(folder / "ours"))
    for name, path in exported.items():
        if name.endswith("/outer"):
            Path(path).rename(folder / "ours" / "server.der")
    with contextlib.ExitStack() as servers, running(found.state, found.policy):

        def restart(folder: Path) -> None:
            servers.close()
            servers.enter_context(plant(plant_port, "secure", folder))

        found.restart = restart
        restart(keys)
        yield found


def test_a_strangers_certificate_is_refused_told_and_trusted_by_a_verb(site: Site) -> None:
    """Towards clients, and towards the plant: both have keys here that nobody has seen before."""
    make(site.folder / "newcomer", "urn:mes", slot="newcomer")
    server = mark((make(site.folder / "new-plant", "urn:plant:server", slot="new-plant") / "own.der").read_bytes())
    site.restart(site.folder / "new-plant")
    with pytest.raises(Exception):  # noqa: B017 - whatever this client makes of it
        site.ask(read, keys="newcomer")
    name = mark((site.folder / "newcomer" / "own.der").read_bytes())
    [outer, _] = site.pki("list")
    assert name in [one["thumbprint"] for one in outer["refused"]]
    eventually(lambda: any(name in entry["detail"] for entry in events(site.state, "malformed")))
    told = next(entry["detail"] for entry in events(site.state, "malformed") if name in entry["detail"])
    assert "is not trusted" in told and f"cofferdam pki trust {name}" in told
    site.pki("trust", name[:12])

    def refused() -> bool:
        """The client is let in; the plant's server is a stranger to the other side yet."""
        with pytest.raises(ua.UaStatusCodeError):
            site.ask(read, keys="newcomer")
        [_, inner] = site.pki("list")
        return server in [one["thumbprint"] for one in inner["refused"]]

    eventually(refused)
    site.pki("trust", server)
    eventually(lambda: reads(site, keys="newcomer"))


def reads(site: Site, keys: str = "") -> bool:
    """Whether it gets through by now."""
    try:
        return bool(site.ask(read, keys=keys) > 0)
    except ua.UaStatusCodeError:
        return False


@pytest.fixture(scope="module")
def trusted(site: Site) -> Site:
    """Client, gate and plant trust each other, whichever test comes first."""

    def let_in() -> bool:
        with contextlib.suppress(Exception):
            return bool(site.ask(read) > 0)
        for side in site.pki("list"):
            for one in side["refused"]:
                site.pki("trust", one["thumbprint"])
        return False

    eventually(let_in)
    return site


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("Aes256_Sha256_RsaPss", 3), ("Aes128_Sha256_RsaOaep", 3), ("Basic256Sha256", 2)],
)
def test_every_policy_and_mode(trusted: Site, kind: str, mode: int) -> None:
    assert trusted.ask(read, kind, mode) == trusted.ask(read)


def test_what_is_not_offered_is_refused(trusted: Site) -> None:
    with pytest.raises(Exception):  # noqa: B017
        trusted.ask(read, "Aes256_Sha256_RsaPss", 2)

    async def plain() -> None:
        async with Client(f"opc.tcp://127.0.0.1:{trusted.port}", timeout=PATIENT):
            raise AssertionError("let in without security")

    with pytest.raises(Exception) as caught:
        asyncio.run(plain())
    assert not isinstance(caught.value, AssertionError)

    async def endpoints() -> list[Any]:
        return list(
            await Client(f"opc.tcp://127.0.0.1:{trusted.port}", timeout=PATIENT).connect_and_get_server_endpoints()
        )

    found = asyncio.run(endpoints())
    assert {(one.SecurityPolicyUri.rpartition("#")[2], int(one.SecurityMode)) for one in found} == {
        ("Basic256Sha256", 3), ("Basic256Sha256", 2), ("Aes256_Sha256_RsaPss", 3), ("Aes128_Sha256_RsaOaep", 3),
    }  # fmt: skip
    assert {one.Server.ApplicationUri for one in found} == {"urn:cofferdam:riverside:outer"}


def test_a_user_is_who_has_the_password_and_may_what_its_principal_may(trusted: Site) -> None:
    async def write(client: Any) -> None:
        await (await speed(client)).write_value(120.0)

    settle(trusted.state)
    kinds = ("write-outcome", "write-allowed", "client-identified")
    known = {kind: len(events(trusted.state, kind)) for kind in kinds}

    def fresh(kind: str) -> list[Any]:
        return events(trusted.state, kind)[known[kind] :]

    secret = trusted.folder / "password"
    secret.write_text("secret words\n")
    trusted.pki("user", "anna", "--password-file", str(secret))
    trusted.ask(write, login=("anna", "secret words"))
    with pytest.raises(ua.UaStatusCodeError):
        trusted.ask(write, login=("anna", "other words"))
    with pytest.raises(ua.UaStatusCodeError):
        trusted.ask(write, login=("berta", "secret words"))
    eventually(lambda: len(fresh("write-outcome")) == 1)
    [entry] = fresh("write-allowed")
    assert entry["principals"] == ["anna", "mes"]
    [told] = [one for one in fresh("client-identified") if one["user"]]
    assert (told["user"], told["application"], told["session"]) == ("anna", "urn:mes", entry["session"])
    assert told["principals"] == ["anna", "mes"]


def test_who_shows_again_who_it_is_keeps_its_session_and_is_told_once(trusted: Site) -> None:
    before = len(events(trusted.state, "client-identified"))

    async def work(client: Any) -> None:
        for _ in range(5):
            assert await read(client) > 0
            await client.activate_session()

    trusted.ask(work)
    eventually(lambda: len(events(trusted.state, "client-identified")) == before + 1)


def test_a_user_may_be_a_certificate_whose_key_the_client_has(trusted: Site) -> None:
    async def write(client: Any) -> None:
        await (await speed(client)).write_value(130.0)

    for name in ("annas", "bertas"):
        make(trusted.folder / name, f"urn:{name}")
    refused = (ua.UaStatusCodeError, ConnectionError)
    with pytest.raises(refused):
        trusted.ask(write, user="annas")
    trusted.pki("user", "anna", "--certificate", str(trusted.folder / "annas" / "own.der"))
    trusted.ask(write, user="annas")
    assert {one["user"] for one in events(trusted.state, "client-identified")} == {"", "anna"}
    with pytest.raises(refused):
        trusted.ask(write, user="bertas")  # nobody's
    with pytest.raises(refused):
        trusted.ask(write, user="annas", key="bertas")  # anna's, and not her key
    assert pki("user", "berta", "--certificate", str(trusted.folder / "annas" / "own.der"), "--policy",
               trusted.policy, "--state", trusted.state)[0] != 0, "one certificate is one user's"  # fmt: skip

    async def thrown_out(client: Any) -> None:
        await write(client)
        await asyncio.to_thread(trusted.pki, "user", "anna", "--remove")
        for _ in range(int(PATIENT * 20)):
            await client.get_namespace_array()
            await asyncio.sleep(0.05)
        raise AssertionError("the session of a user who is gone goes on")

    with pytest.raises(Exception) as caught:
        trusted.ask(thrown_out, user="annas")
    assert not isinstance(caught.value, AssertionError)


def test_a_certificate_by_an_authority_is_asked_for_and_taken(trusted: Site) -> None:
    requests = trusted.pki("csr", str(trusted.folder / "requests"))
    [inner] = [Path(path) for name, path in requests.items() if name.endswith("/inner")]
    made = sign(inner.read_bytes(), trusted.folder / "authority")
    taken = trusted.pki("import", str(made))
    assert [name.rpartition("/")[2] for name in taken] == ["inner"]
    [_, side] = trusted.pki("list")
    assert side["own"]["thumbprint"] == mark(made.read_bytes())
    assert trusted.ask(read) > 0, "a channel to the plant is made with it, if not at once"
    code, _, error = pki(
        "import", trusted.folder / "mes" / "own.der", "--policy", trusted.policy, "--state", trusted.state
    )
    assert code != 0 and "for no key of ours" in error


def test_a_rejected_certificate_ends_what_stands_by_it(trusted: Site) -> None:
    make(trusted.folder / "third", "urn:third")
    name = mark((trusted.folder / "third" / "own.der").read_bytes())
    trusted.pki("trust", "--side", "outer", "--file", str(trusted.folder / "third" / "own.der"))

    async def work(client: Any) -> None:
        # Its certificate is trusted, and no principal is that application: it sees nothing.
        assert LINE in await client.get_namespace_array()
        with pytest.raises(ua.UaStatusCodeError):
            await read(client)
        await asyncio.to_thread(trusted.pki, "reject", name)
        for _ in range(int(PATIENT * 20)):
            try:
                await client.get_namespace_array()
            except Exception:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the channel of a rejected certificate goes on")

    with pytest.raises(Exception) as caught:
        trusted.ask(work, who="third")
        raise KeyError("closed in order")
    assert not isinstance(caught.value, AssertionError)
    with pytest.raises(Exception):  # noqa: B017
        trusted.ask(read, who="third")
    [outer, _] = trusted.pki("list")
    assert outer["revoked"] == [name]


def test_a_revocation_list_ends_the_sessions_of_a_certificate_that_an_authority_has_given(trusted: Site) -> None:
    authority, other = Authority(), Authority("another")
    given = authority.give(make(trusted.folder / "given", "urn:mes", slot="given"))
    make(trusted.folder / "other-given", "urn:mes", slot="other")
    (trusted.folder / "authority.der").write_bytes(authority.certificate)
    trusted.pki("trust", "--side", "outer", "--file", str(trusted.folder / "authority.der"))
    file = trusted.folder / "list.crl"

    def take(data: bytes) -> tuple[int, str, str]:
        file.write_bytes(data)
        return pki("crl", file, "--policy", trusted.policy, "--state", trusted.state)

    for data, wrong in ((b"x", "no revocation list"), (other.list(), "no authority that is trusted"),
                        (b"x" * (1 << 20), "more than 256 KiB")):  # fmt: skip
        code, _, error = take(data)
        assert code != 0 and wrong in error
    code, said, error = take(authority.list())
    assert code == 0 and "CN=authority: 0 certificates, until" in said, error
    code, _, error = take(authority.list(given, ago=3))
    assert code != 0 and "older than the list" in error

    async def work(client: Any) -> None:
        assert await read(client) > 0
        code, said, error = await asyncio.to_thread(take, authority.list(given))
        assert code == 0 and "1 certificates" in said, error
        for _ in range(int(PATIENT * 20)):
            try:
                await client.get_namespace_array()
            except Exception:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the channel of a certificate that was revoked goes on")

    with pytest.raises(Exception) as caught:
        trusted.ask(work, who="mes", keys="given")
        raise KeyError("closed in order")
    assert not isinstance(caught.value, AssertionError)
    with pytest.raises(Exception):  # noqa: B017
        trusted.ask(read, who="mes", keys="given")
    eventually(
        lambda: any("its authority has revoked it" in one["detail"] for one in events(trusted.state, "malformed"))
    )
    [outer, _] = trusted.pki("list")
    assert [(one["issuer"], one["revoked"]) for one in outer["lists"]] == [("CN=authority", 1)]
    assert trusted.ask(read) > 0, "others go on"


def test_a_server_that_shows_another_certificate_is_asked_nothing_until_somebody_trusts_it(trusted: Site) -> None:
    assert trusted.ask(read) > 0
    trusted.restart(make(trusted.folder / "other-plant", "urn:plant:server", slot="another"))
    name = mark((trusted.folder / "other-plant" / "own.der").read_bytes())

    def refused() -> bool:
        with contextlib.suppress(ua.UaStatusCodeError):
            trusted.ask(read)
            raise AssertionError("a server that nobody trusts was asked")
        [_, inner] = trusted.pki("list")
        return name in [one["thumbprint"] for one in inner["refused"]]

    eventually(refused)
    said = f"cofferdam pki trust {name}"
    eventually(lambda: any(said in entry["detail"] for entry in events(trusted.state, "malformed")))
    eventually(lambda: "opcua-stranger-filler" in cli("status", "--state", trusted.state)[1])
    trusted.pki("trust", name)
    eventually(lambda: reads(trusted))
