"""Serve a recording (lines of `address: hex words`) as a Modbus device with pymodbus, which is not ours.

usage: modbus_server.py RECORDING PORT UNIT [tcp|rtu]
`rtu` speaks on the TCP port what a serial line carries.
Prints `ready` when it listens.
"""

import asyncio
import sys

from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def words(path):
    """The recording's registers: {address: word}."""
    found = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.split("#")[0].strip()
            if not line:
                continue
            address, values = line.split(":")
            for i, word in enumerate(values.split()):
                found[int(address) + i] = int(word, 16)
    return found


def blocks(registers):
    """Runs of registers without gaps."""
    runs = []
    for address in sorted(registers):
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1][1].append(registers[address])
        else:
            runs.append((address, [registers[address]]))
    return [SimData(address, values=values, datatype=DataType.REGISTERS) for address, values in runs]


async def main():
    recording, port, unit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    device = SimDevice(unit, simdata=blocks(words(recording)))
    framer = FramerType.RTU if sys.argv[4:] == ["rtu"] else FramerType.SOCKET
    server = ModbusTcpServer(device, framer=framer, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
