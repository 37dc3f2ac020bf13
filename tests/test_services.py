"""The services that tests lean on: they are there, they are the real ones, and their ports are nobody else's."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from tests import ports
from tests.ports import held_port, held_ports
from tests.services import Nats, Postgres, needs_nats, needs_postgres


def test_a_held_port_is_given_to_nobody_and_may_be_listened_on() -> None:
    port = held_port()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    if not ports.ALONE:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    for address in ("127.0.0.1", "127.0.0.9", "127.0.0.1"):
        with socket.create_server((address, port)), socket.create_connection((address, port)):
            pass
    assert len({port, *held_ports(50)}) == 51


@needs_postgres
def test_postgresql(postgres_server: Postgres) -> None:
    import psycopg

    one, other = postgres_server.fresh(), postgres_server.fresh()
    with psycopg.connect(one) as client:
        client.execute("create table readings (at timestamptz, value double precision)")
        assert client.execute("select count(*) from readings").fetchone() == (0,)
    with psycopg.connect(other) as client, pytest.raises(psycopg.errors.UndefinedTable):
        client.execute("select * from readings")


@needs_nats
def test_nats_keeps_what_it_was_told(nats_server: Nats) -> None:
    import nats

    async def play() -> None:
        client = await nats.connect(nats_server.url)
        stream = client.jetstream()
        await stream.add_stream(name="test_services", subjects=["test_services.>"])
        assert (await stream.publish("test_services.one", b"1")).seq == 1
        told = await stream.subscribe("test_services.>", ordered_consumer=True)
        assert (await told.next_msg(60)).data == b"1"
        await client.close()

    asyncio.run(play())
