"""Ports, with real sockets."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tautools.errors import ServerError
from tautools.servers.ports import choose_port, listeners

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as probe:
        probe.bind((HOST, choose_port(HOST)))


def test_a_promised_port_is_not_given_again() -> None:
    first = choose_port(HOST)

    with pytest.raises(ServerError, match="promised to another server"):
        choose_port(HOST, asked=first, avoid={first})


def test_a_taken_port_is_refused_with_its_owner_though_it_could_be_shared(taken: int) -> None:
    with pytest.raises(ServerError, match=f"Port {taken} .* belongs to process {os.getpid()}") as caught:
        choose_port(HOST, asked=taken)

    assert "--port" in caught.value.next_step


def test_the_listener_of_a_port_is_found(taken: int) -> None:
    assert listeners(taken) == [os.getpid()]


def test_an_asked_port_whose_last_connections_are_closing_is_usable() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect((HOST, port))
        connection, _ = server.accept()
        connection.close()  # the side that closes first keeps the port in TIME_WAIT
        client.recv(1)
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind((HOST, port))

    assert choose_port(HOST, asked=port) == port
