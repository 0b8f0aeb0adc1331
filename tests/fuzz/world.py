"""A small world to fuzz in: few clients, few sessions, few places, so that they get in each
other's way. It makes the steps of the agent and of time, and knows what packets.py needs to send
something that is likely to matter. All by one random number generator.
"""

import random
from dataclasses import dataclass

from fuzz.frames import MAPPED
from fuzz.steps import (
    Clock,
    EndSession,
    GiveSession,
    SetLane,
    SetOwner,
    SetSession,
    SetSettings,
    Step,
    Sweep,
)

SHARED_PORT, LANES = 3478, range(20000, 20016)
VIP4, VIP6 = MAPPED + bytes([192, 0, 2, 10]), bytes.fromhex("20010db8" + "00" * 11 + "10")
OTHER_VIP4, NO_VIP4 = MAPPED + bytes([192, 0, 2, 11]), MAPPED + bytes([192, 0, 2, 12])
# The third is not in use: its bit of the mask is 0.
VIPS = (VIP4, VIP6, NO_VIP4, OTHER_VIP4, *[bytes(16)] * 4)
VIP_MASK = 0b1011
ICE_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
TICK_NS = 1 << 30
ACTIVE, DRAINING, DOWN = 1, 2, 0
Address = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A ufrag with its password, and the session that it is for."""

    ufrag: str
    password: str
    id: int


class World:
    """What the generator believes; the edge may have dropped a packet and know less."""

    def __init__(self, rng: random.Random, recorded: list[tuple[str, str]]) -> None:
        self.rng = rng
        self.owners: dict[int, tuple[int, int]] = {}  # slot -> generation, lane
        self.sessions: list[Credentials] = []
        self.ended: list[Credentials] = []
        self._recorded = recorded  # ufrags with passwords of the recorded clients
        self._passwords = [self._word(rng.choice((22, 24, 32, 64, 65, 256))) for _ in range(8)]
        self._next_id = rng.choice((1, 0x1_0000_0001, 0xFFFF_FFFF_0000_0001, 0x7777_0000_0000))
        self.clients = self._make_clients()
        self.now = self._first_ns()
        self.settings = self._make_settings()

    def start(self) -> list[Step]:
        """Return what an edge begins with."""
        steps: list[Step] = [self.settings, Clock(self.now)]
        for slot in range(1, 1 + self.rng.randint(2, 4)):
            steps += self._owner(slot, self.rng.choice((1, 7, 255)), LANES[slot], ACTIVE)
        for ufrag, password in self._recorded:
            steps.append(self._session(ufrag, password))
        for _ in range(self.rng.randint(2, 8)):
            steps.append(self._session())
        return steps

    def some_client(self) -> Address:
        """Return the address of a client; the first ones are the busiest."""
        return self.clients[int(len(self.clients) * self.rng.random() ** 2)]

    def some_session(self) -> Credentials:
        """Return a session that is there."""
        return self.rng.choice(self.sessions)

    def vip_for(self, client: Address) -> bytes:
        """Return a VIP of the client's family."""
        if not client[0].startswith(MAPPED):
            return VIP6
        return OTHER_VIP4 if self.rng.random() < 0.1 else VIP4

    def pass_time(self) -> Step:
        """Let time pass: mostly within a tick or to the next one, at times to a bound."""
        rng = self.rng
        ticks = rng.choices((0, 1, 2, 5, 6, 7, 27, 28, 29, 111, 112, 248, 256, -1, 65536),
                            (30, 30, 8, 6, 8, 3, 3, 4, 2, 2, 2, 1, 0.5, 1, 0.3))[0]  # fmt: skip
        self.now = max(self.now + ticks * TICK_NS + rng.randrange(TICK_NS // 4), 0) & (1 << 64) - 1
        return Clock(self.now)

    def change(self) -> list[Step]:
        """Return what the agent does next."""
        what = self.rng.choices(
            (
                *(self._begin, self._end, self._restart, self._reuse, self._give),
                *(self._change_owner, self._change_lane, self._change_limits, self._sweep),
            ),
            (8, 6, 8, 3, 5, 7, 1.5, 3, 8),
        )[0]
        return what()

    def _begin(self) -> list[Step]:
        if len(self.sessions) > 12:
            return self._end()
        return [self._session()]

    def _end(self) -> list[Step]:
        if len(self.sessions) < 2:
            return [self._session()]
        gone = self.sessions.pop(self.rng.randrange(len(self.sessions)))
        self.ended = [*self.ended[-7:], gone]
        return [EndSession(gone.ufrag)]

    def _restart(self) -> list[Step]:
        """ICE restart: another ufrag and password, the same session and owner."""
        old = self.some_session()
        step = self._session(session_id=old.id)
        if self.rng.random() < 0.3 and old in self.sessions:
            self.sessions.remove(old)
            return [step, EndSession(old.ufrag)]
        return [step]

    def _reuse(self) -> list[Step]:
        """A ufrag that was, or is, another session's; or a session that comes again."""
        old = self.rng.choice([*self.sessions, *self.ended])
        self.sessions = [one for one in self.sessions if one.ufrag != old.ufrag]
        session_id = old.id if self.rng.random() < 0.4 else 0
        return [self._session(old.ufrag, old.password, session_id=session_id)]

    def _give(self) -> list[Step]:
        slot = self.rng.choice(list(self.owners))
        return [GiveSession(self.some_session().ufrag, slot, self.owners[slot][0])]

    def _change_owner(self) -> list[Step]:
        slot = self.rng.choice(list(self.owners))
        generation, lane = self.owners[slot]
        born = self.rng.random() < 0.35
        if born:
            generation = generation % 255 + 1
        state = self.rng.choices((ACTIVE, DRAINING, DOWN), (6, 1, 2))[0]
        steps = self._owner(slot, generation, lane, state)
        if born:  # some of its sessions, or of others', are made anew
            steps += [
                GiveSession(one.ufrag, slot, generation)
                for one in self.sessions
                if self.rng.random() < 0.5
            ]
        return steps

    def _owner(self, slot: int, generation: int, lane: int, state: int) -> list[Step]:
        self.owners[slot] = generation, lane
        steps: list[Step] = [SetOwner(slot, generation, lane, state)]
        # At times the owner of the lane is written late, as it may be seen from another CPU.
        if self.rng.random() < 0.9:
            steps.append(SetLane(lane, slot, generation))
        return steps

    def _change_lane(self) -> list[Step]:
        slot = self.rng.choice(list(self.owners))
        generation, old = self.owners[slot]
        new = self.rng.choice([*LANES])
        gone = SetLane(old, 0, 0)
        return [gone, *self._owner(slot, generation, new, ACTIVE)]

    def _change_limits(self) -> list[Step]:
        old = self.settings
        self.settings = self._make_settings(old.flow_keys, old.flow_buckets, old.edge_key)
        return [self.settings]

    def _sweep(self) -> list[Step]:
        return [Sweep()]

    def _session(self, ufrag: str = "", password: str = "", session_id: int = 0) -> SetSession:
        rng = self.rng
        if not session_id:
            session_id = self._next_id
            # Ids that agree in their lower halves are told apart by the whole.
            self._next_id += rng.choice((1, 1, 1 << 32)) & (1 << 64) - 1
            self._next_id &= (1 << 64) - 1
        made = Credentials(
            ufrag or self._word(rng.choice((4, 5, 7, 8, 9, 16, 16, 24, 255, 256))),
            password or rng.choice(self._passwords),
            session_id,
        )
        self.sessions.append(made)
        slot = rng.choice(list(self.owners))
        generation = self.owners[slot][0] if rng.random() < 0.97 else 3
        return SetSession(made.ufrag, made.id, slot, generation, made.password)

    def _word(self, length: int) -> str:
        return "".join(self.rng.choices(ICE_CHARS, k=length))

    def _make_clients(self) -> list[Address]:
        rng = self.rng
        clients = []
        for _ in range(rng.choice((3, 12, 40, 120))):
            network = bytes([198, 51, rng.choice((100, 100, 101)), rng.randint(1, 9)])
            address = MAPPED + network
            if rng.random() < 0.3:
                site = bytes([0, rng.choice((1, 1, 2)), 0, rng.randint(0, 1)])
                address = bytes.fromhex("20010db8") + site + bytes(7) + bytes([rng.randint(1, 9)])
            clients.append((address, rng.choice((1024, 40000, 65535, rng.randint(1, 65535)))))
        return clients

    def _first_ns(self) -> int:
        """Return a start at which the tick, its low byte or its low half is about to wrap."""
        tick = self.rng.choice((0, 5, 250, 1000, 0xFFFC, 0xFFFF_FFFA, self.rng.getrandbits(30)))
        return tick * TICK_NS + self.rng.randrange(TICK_NS)

    def _make_settings(
        self, keys: tuple[int, ...] = (), buckets: int = 0, edge_key: bytes = b""
    ) -> SetSettings:
        rng = self.rng
        if not keys:
            keys = tuple(rng.getrandbits(64) for _ in range(6))
            # Keys that tell some tuples not apart: their tags are the same.
            blind = rng.choices(((), (4,), (3,), (0, 1, 2, 3, 4, 5)), (80, 10, 8, 2))[0]
            keys = tuple(0 if i in blind else key for i, key in enumerate(keys))
        return SetSettings(
            edge_key=edge_key or rng.randbytes(16),
            vips=VIPS,
            vip_mask=VIP_MASK,
            shared_port=SHARED_PORT,
            lane_first=LANES[0],
            lane_last=LANES[-1],
            flow_keys=keys,
            flow_buckets=buckets or rng.choice((2, 2, 4, 4, 8, 16, 64, 1024)),
            session_flows=rng.choice((1, 2, 3, 8, 8, 16)),
            check_budget=rng.choice((1, 3, 8, 54, 54)),
            prefix_failures=rng.choice((0, 1, 3, 108)),
            flow_packets=rng.choice((0, 1, 4, 20, 2148, 2148)),
        )
