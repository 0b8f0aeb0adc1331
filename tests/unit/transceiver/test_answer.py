from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import SignalingError, WireError
from turnout.transceiver.answer import (
    FINGERPRINTS_MAX,
    LocalDescription,
    Negotiated,
    build_answer,
)
from turnout.wire.sdp import Candidate, Codec, MediaSection, SessionDescription

OFFERS = Path(__file__).parents[2] / "vectors" / "offers"
FINGERPRINT = ":".join(["AB"] * 32)
LOCAL = LocalDescription(
    ufrag="serv",
    pwd="p" * 24,
    fingerprint_sha256=FINGERPRINT,
    candidates=[("192.0.2.2", 20000), ("fd00::2", 20000)],
    session_id=77,
    ssrc=1234,
    cname="echo",
)
CHROMIUM_AUDIO = (OFFERS / "chromium-audio.sdp").read_bytes().decode()
CHROMIUM_AUDIO_VIDEO = (OFFERS / "chromium-audio-video.sdp").read_bytes().decode()


def answer(offer: str) -> tuple[SessionDescription, Negotiated]:
    """Answer an offer, by way of the text that would travel."""
    built, negotiated = build_answer(SessionDescription.parse(offer), LOCAL)
    return SessionDescription.parse(str(built)), negotiated


def answer_vector(name: str) -> tuple[SessionDescription, Negotiated]:
    return answer((OFFERS / f"{name}.sdp").read_bytes().decode())


def shape(section: MediaSection) -> tuple[str, str, bool]:
    directions = {"sendrecv", "sendonly", "recvonly", "inactive"}
    direction = next((a.name for a in section.attributes if a.name in directions), "")
    return section.kind, direction, section.is_rejected


def refusal(offer: str) -> SignalingError:
    with pytest.raises(SignalingError) as caught:
        answer(offer)
    return caught.value


@pytest.mark.parametrize(
    ("name", "bundle", "shapes"),
    [
        ("chromium-audio", ("0",), [("audio", "sendrecv", False)]),
        ("aiortc-audio", ("0",), [("audio", "sendrecv", False)]),
        ("chromium-sendonly", ("0",), [("audio", "recvonly", False)]),
        ("aiortc-sendonly", ("0",), [("audio", "recvonly", False)]),
        ("chromium-recvonly", ("0",), [("audio", "sendonly", False)]),
        ("aiortc-recvonly", ("0",), [("audio", "sendonly", False)]),
        (
            "chromium-audio-video",
            ("0", "1"),
            [("audio", "sendrecv", False), ("video", "inactive", False)],
        ),
        (
            "aiortc-audio-video",
            ("0", "1"),
            [("audio", "sendrecv", False), ("video", "inactive", False)],
        ),
        (
            "chromium-video-first-max-bundle",
            ("0", "1"),
            [("video", "inactive", False), ("audio", "sendrecv", False)],
        ),
        (
            "aiortc-video-first",
            ("0", "1"),
            [("video", "inactive", False), ("audio", "sendrecv", False)],
        ),
        (
            "chromium-audio-datachannel",
            ("0", "1"),
            [("audio", "sendrecv", False), ("application", "", False)],
        ),
        (
            "chromium-two-audio",
            ("0", "1"),
            [("audio", "sendrecv", False), ("audio", "inactive", False)],
        ),
    ],
)
def test_answer_real_offer_takes_one_audio_section(
    name: str, bundle: tuple[str, ...], shapes: list[tuple[str, str, bool]]
) -> None:
    built, negotiated = answer_vector(name)
    assert [shape(section) for section in built.media] == shapes
    assert built.bundle == bundle
    audio = next(section for section in built.media if section.mid == negotiated.audio_mid)
    assert audio.kind == "audio"
    assert negotiated.direction == shape(audio)[1]


@pytest.mark.parametrize("order", sorted(permutations(["audio", "datachannel", "video"])))
def test_answer_every_order_of_sections_is_accepted_whole(order: tuple[str, ...]) -> None:
    built, negotiated = answer_vector(f"chromium-{'-'.join(order)}")
    shapes = {
        "audio": ("audio", "sendrecv", False),
        "video": ("video", "inactive", False),
        "datachannel": ("application", "", False),
    }
    assert [shape(section) for section in built.media] == [shapes[kind] for kind in order]
    assert built.bundle == ("0", "1", "2")
    assert negotiated.audio_mid == str(order.index("audio"))
    assert negotiated.transport_mid == "0"
    data = next(section for section in built.media if section.kind == "application")
    assert data.attributes.value("sctp-port") == "5000"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m=video 9 ", "m=video 0 "),
        ("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/AVP"),
        ("a=group:BUNDLE 0 1", "a=group:BUNDLE 0"),
        ("a=rtpmap:", "a=x:"),
    ],
)
def test_answer_section_that_cannot_ride_along_is_rejected(old: str, new: str) -> None:
    audio, video = CHROMIUM_AUDIO_VIDEO.split("m=video")
    assert old in audio + "m=video" + video
    # The audio section keeps its codecs: only the video section's lines are changed.
    head = audio.replace(old, new) if "BUNDLE" in old else audio
    built, _ = answer(head + ("m=video" + video).replace(old, new))
    assert [section.is_rejected for section in built.media] == [False, True]
    assert built.bundle == ("0",)
    assert built.media[1].mid == "1"


@pytest.mark.parametrize("path", sorted(OFFERS.glob("*.sdp")), ids=lambda path: path.stem)
def test_answer_real_offer_connects_one_transport(path: Path) -> None:
    offer = SessionDescription.parse(path.read_bytes().decode())
    if not any(section.kind == "audio" for section in offer.media):
        assert refusal(path.read_bytes().decode()).status == 406
        return
    built, negotiated = answer(path.read_bytes().decode())
    assert built.attributes.has("ice-lite")
    assert [section.mid for section in built.media] == [section.mid for section in offer.media]
    accepted = [section for section in built.media if not section.is_rejected]
    for section in accepted:
        assert section.attributes.value("setup") == "passive"
        assert section.attributes.value("ice-ufrag") == "serv"
        assert section.attributes.value("fingerprint") == f"sha-256 {FINGERPRINT}"
        assert section.port == 20000
        if section.kind != "application":
            assert section.attributes.has("rtcp-mux")
    tagged = accepted[0]
    candidates = [Candidate.parse(value) for value in tagged.attributes.values("candidate")]
    assert [(c.address, c.port) for c in candidates] == LOCAL.candidates
    assert tagged.attributes.has("end-of-candidates")
    assert not any(section.attributes.has("candidate") for section in accepted[1:])
    audio = offer.section(negotiated.audio_mid or "")
    assert audio is not None
    assert negotiated.remote_ufrag == offer.inherited(audio, "ice-ufrag")
    assert negotiated.remote_pwd == offer.inherited(audio, "ice-pwd")
    assert negotiated.remote_fingerprints == tuple(offer.fingerprints(audio))


@pytest.mark.parametrize("path", sorted(OFFERS.glob("*audio*.sdp")), ids=lambda path: path.stem)
def test_answer_real_offer_promises_nothing_that_is_not_there(path: Path) -> None:
    built, _ = answer(path.read_bytes().decode())
    for section in built.media:
        for name in ("extmap", "rtcp-fb", "rtcp-rsize", "crypto", "rid", "simulcast"):
            assert not section.attributes.has(name)
        assert not any(codec.name.lower() == "red" for codec in section.codecs)


def test_answer_data_channel_first_keeps_the_tagged_section() -> None:
    built, negotiated = answer_vector("chromium-datachannel-first")
    data, audio = built.media
    assert not data.is_rejected
    assert data.attributes.value("sctp-port") == "5000"
    assert built.bundle == ("0", "1")
    assert negotiated.audio_mid == audio.mid == "1"


def test_answer_opus_is_taken_with_the_offer_s_own_parameters() -> None:
    built, negotiated = answer_vector("chromium-audio")
    assert negotiated.codec == Codec(111, "opus", 48000, 2, "minptime=10;useinbandfec=1")
    assert negotiated.payload_type == 111
    assert negotiated.telephone_event == Codec(110, "telephone-event", 48000)
    assert built.media[0].formats == ("111", "110")
    assert built.media[0].codecs == [negotiated.codec, negotiated.telephone_event]


@pytest.mark.parametrize(
    ("formats", "rtpmap", "taken"),
    [
        ("9 0 8", "", Codec(9, "G722", 8000)),
        ("8 0", "", Codec(8, "PCMA", 8000)),
        ("0 96", "a=rtpmap:96 OPUS/48000/2\r\n", Codec(96, "OPUS", 48000, 2)),
        ("63 0", "a=rtpmap:63 red/48000/2\r\n", Codec(0, "PCMU", 8000)),
        ("96 0", "a=rtpmap:96 opus/16000/2\r\n", Codec(0, "PCMU", 8000)),
        # 72 would be read as an RTCP sender report on the shared port.
        ("72 0", "a=rtpmap:72 opus/48000/2\r\n", Codec(0, "PCMU", 8000)),
    ],
)
def test_answer_codec_is_opus_else_the_offer_s_first(
    formats: str, rtpmap: str, taken: Codec
) -> None:
    _, negotiated = answer(minimal_offer(formats=formats, more=rtpmap))
    assert negotiated.codec == taken
    assert negotiated.telephone_event is None


def test_answer_packet_times_of_the_offer_come_back() -> None:
    built, _ = answer(minimal_offer(more="a=ptime:20\r\na=maxptime:60\r\n"))
    assert built.media[0].attributes.value("ptime") == "20"
    assert built.media[0].attributes.value("maxptime") == "60"


def test_answer_that_sends_names_stream_and_source() -> None:
    built, _ = answer_vector("chromium-recvonly")
    assert built.media[0].attributes.value("msid") == "echo echo-audio"
    assert built.media[0].attributes.value("ssrc") == "1234 cname:echo"


def test_answer_that_only_receives_names_no_stream() -> None:
    built, _ = answer_vector("chromium-sendonly")
    assert not built.media[0].attributes.has("msid")
    assert not built.media[0].attributes.has("ssrc")


def test_answer_bundle_only_section_with_port_0_is_taken() -> None:
    # Firefox, max-bundle, video first: the audio section rides along with port 0.
    offer = (OFFERS / "chromium-video-first-max-bundle.sdp").read_bytes().decode()
    offer = offer.replace("m=audio 9 ", "m=audio 0 ").replace("a=mid:1", "a=bundle-only\r\na=mid:1")
    built, negotiated = answer(offer)
    assert negotiated.audio_mid == "1"
    assert [section.port for section in built.media] == [20000, 20000]
    assert not built.media[1].attributes.has("bundle-only")


def test_answer_bundled_audio_takes_the_tagged_section_s_transport() -> None:
    offer = (
        session("a=group:BUNDLE v a\r\n")
        + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=mid:v\r\n"
        + transport(ufrag="tagd")
        + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=bundle-only\r\na=mid:a\r\na=rtcp-mux\r\n"
    )
    _, negotiated = answer(offer)
    assert negotiated.remote_ufrag == "tagd"


def test_answer_without_bundle_has_no_group_and_rejects_the_rest() -> None:
    offer = CHROMIUM_AUDIO_VIDEO.replace("a=group:BUNDLE 0 1\r\n", "")
    built, _ = answer(offer)
    assert built.bundle == ()
    assert [section.is_rejected for section in built.media] == [False, True]


def test_answer_audio_outside_the_group_stands_alone() -> None:
    built, _ = answer(CHROMIUM_AUDIO_VIDEO.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 1"))
    assert built.bundle == ()
    assert [section.is_rejected for section in built.media] == [False, True]


def test_answer_section_without_mid_is_answered_without_mid() -> None:
    built, negotiated = answer(minimal_offer())
    assert negotiated.audio_mid is None
    assert built.media[0].mid is None
    assert built.bundle == ()


def test_answer_active_audio_is_preferred_to_an_inactive_one() -> None:
    offer = (OFFERS / "chromium-two-audio.sdp").read_bytes().decode()
    _, negotiated = answer(offer.replace("a=sendrecv", "a=inactive", 1))
    assert negotiated.audio_mid == "1"


def test_answer_inactive_audio_alone_is_answered_inactive() -> None:
    built, negotiated = answer(CHROMIUM_AUDIO.replace("a=sendrecv", "a=inactive"))
    assert negotiated.direction == "inactive"
    assert not built.media[0].is_rejected


def test_answer_setup_active_is_answered_passive() -> None:
    built, _ = answer(CHROMIUM_AUDIO.replace("setup:actpass", "setup:active"))
    assert built.media[0].attributes.value("setup") == "passive"


@pytest.mark.parametrize(
    ("old", "new", "status", "said"),
    [
        ("a=setup:actpass", "a=setup:passive", 422, "a=setup:passive"),
        ("a=setup:actpass", "a=setup:holdconn", 422, "a=setup:holdconn"),
        ("a=rtcp-mux\r\n", "", 422, "a=rtcp-mux"),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1", 422, "the offer has sha-1"),
        ("a=fingerprint:", "a=x:", 422, "no a=fingerprint"),
        ("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 AB:", 400, "has not 32 bytes"),
        ("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 Z", 400, "a=fingerprint"),
        ("a=ice-ufrag:", "a=x:", 422, "a=ice-ufrag and a=ice-pwd"),
        ("a=ice-pwd:", "a=ice-pwd:=", 400, "a=ice-pwd"),
        ("m=audio", "m=video", 406, "needs an m=audio section"),
        ("m=audio 9", "m=audio 0", 406, "needs an m=audio section"),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", 406, "UDP/TLS/RTP/SAVPF"),
        ("SAVPF 111 63 9 0 8 13 110 126", "SAVPF 13 126", 406, "CN/8000"),
        ("a=rtpmap:111 opus/48000/2", "a=rtpmap:111 opus", 400, "clock rate"),
        ("a=group:BUNDLE 0", "a=group:BUNDLE x 0", 400, "'x'"),
    ],
)
def test_answer_unusable_offer_is_refused_with_what_to_change(
    old: str, new: str, status: int, said: str
) -> None:
    assert old in CHROMIUM_AUDIO
    error = refusal(CHROMIUM_AUDIO.replace(old, new))
    assert error.status == status
    assert said in error.detail


def test_answer_offer_without_sections_is_refused() -> None:
    assert refusal(session("")).status == 406


def test_answer_more_fingerprints_than_are_kept_is_refused() -> None:
    line = f"a=fingerprint:sha-256 {FINGERPRINT}\r\n"
    _, negotiated = answer(minimal_offer().replace(line, line * FINGERPRINTS_MAX))
    assert len(negotiated.remote_fingerprints) == FINGERPRINTS_MAX
    error = refusal(minimal_offer().replace(line, line * (FINGERPRINTS_MAX + 1)))
    assert (error.status, "at most 16" in error.detail) == (400, True)


def test_answer_weak_fingerprint_beside_a_strong_one_is_passed_over() -> None:
    weak = "a=fingerprint:sha-1 " + ":".join(["00"] * 20) + "\r\n"
    _, negotiated = answer(CHROMIUM_AUDIO.replace("a=setup", weak + "a=setup"))
    assert [fingerprint.algorithm for fingerprint in negotiated.remote_fingerprints] == ["sha-256"]


def session(attributes: str) -> str:
    return f"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{attributes}"


def transport(ufrag: str = "clnt") -> str:
    return (
        f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{'c' * 22}\r\na=setup:actpass\r\n"
        f"a=fingerprint:sha-256 {FINGERPRINT}\r\na=rtcp-mux\r\n"
    )


def minimal_offer(formats: str = "0", more: str = "") -> str:
    section = f"m=audio 9 UDP/TLS/RTP/SAVPF {formats}\r\n"
    return session("") + section + transport() + more


@given(
    name=st.sampled_from(sorted(path.stem for path in OFFERS.glob("*.sdp"))),
    edits=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from(["drop", "double", "cut", "bend"])),
        max_size=6,
    ),
)
def test_answer_damaged_offer_is_answered_or_refused(
    name: str, edits: list[tuple[int, str]]
) -> None:
    lines = (OFFERS / f"{name}.sdp").read_text().splitlines()
    for position, edit in edits:
        at = position % len(lines)
        line = lines[at]
        damaged = {
            "drop": [],
            "double": [line, line],
            "cut": [line[: len(line) // 2]],
            "bend": [line.replace("9", "x").replace("1", "-1")],
        }
        lines[at : at + 1] = damaged[edit]
        lines = lines or [""]
    try:
        built, negotiated = answer("\r\n".join(lines))
    except (SignalingError, WireError) as error:
        assert str(error)  # noqa: PT017 - that no other error comes is the test
    else:
        assert built.section(negotiated.audio_mid or "") or negotiated.audio_mid is None
