#!/usr/bin/python3
# Stands in for sluice-gate-runner: speaks its protocol, and does what the component tells it, which is Python here.
import mmap
import os
import socket
import sys

ADMITTED = bytes.fromhex("@ADMITTED@")
READY = bytes.fromhex("@READY@")
connection = socket.socket(fileno=0)


def number(n):
    return b"\x1b" + n.to_bytes(8, "big")


def text(words):
    return bytes([0x60 + len(words)]) + words.encode()


def ok(value):
    return answer("Ok", value)


def answer(kind, value):
    return b"\xa1" + text(kind) + value


def numbered(n, response):
    return b"\xa2" + text("id") + number(n) + text("response") + response


def send(body):
    connection.sendall(len(body).to_bytes(4, "little") + body)


def receive():
    first, files, _, _ = socket.recv_fds(connection, 1, 4)
    if not first:
        sys.exit()
    length = first + connection.recv(3, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(length, "little"), socket.MSG_WAITALL), files


def write(space, content):
    os.pwrite(space, content, 0)
    return len(content)


# What an honest runner does; a component replaces one of them.
def instrumented(space):
    return write(space, b"\x7fELF instrumented")


def compiled(space):
    return write(space, b"\x7fELF compiled")


def snapshotted(space, component):
    return write(space, b"\0asm" + component)


def loaded():
    return ok(b"\xf6")


def component(file):
    told = os.pread(file, 1 << 20, 0).removeprefix(b"\0asm")
    exec(told, globals())
    return told


if sys.argv[1] == "compile":
    request, files = receive()
    component(files[0])
    if b"instrument" in request:
        send(answer("instrumented", ok(b"\x82" + ADMITTED + ok(number(instrumented(files[1]))))))
    else:
        send(answer("compiled", ok(number(compiled(files[1])))))
else:
    send(numbered(0, READY))
    asked = 0
    while True:
        request, files = receive()
        asked += 1
        if len(files) == 3:
            told = component(files[0])
            response = answer("snapshot", ok(number(snapshotted(files[2], told))))
        else:
            response = answer("loaded", loaded())
        for file in files:
            os.close(file)
        send(numbered(asked, response))
