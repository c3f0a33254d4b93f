//! `[[farm]]` and the tables in it, but for its checks.

use super::plain::{Place, field};
use super::{Key, Schema, Takes, duration, list, number, text, word};
use crate::config::model::{Echo, GUE_PORT, Mode, OnDown, Over, Scheduler, USER, WEIGHT_MAX, WhenAllDown};
use lb_common::bucket::RATE_MAX;

const TABLE: Takes = Takes::Other { kind: "table", json: &["object"], default: None };

pub static FARM: Schema = Schema {
    title: "[[farm]]",
    keys: &[
        Key::new("name", text("string"), "`a-z`, `0-9`, `-`; 1 to 63 of them; unique.").absent("required"),
        Key::new(
            "type",
            Takes::Word { words: || vec!["l4"], later: &["redirect"] },
            "The only one so far.",
        ),
        Key::new(
            "vip",
            list("address or list", &["string", "array"]),
            "What clients connect to: IPv4, IPv6 or both. Unicast addresses without a prefix length; no loopback, no \
             link-local.",
        )
        .absent("required"),
        Key::new(
            "ports",
            list("list", &["integer", "string", "array"]),
            "Numbers from 1 to 65535 and ranges `\"587-588\"`; or `\"*\"` alone, every port, those of the balancer's own \
             servers on that address (sshd, for one) among them. None twice.",
        )
        .absent("required"),
        Key::new(
            "protocol",
            Takes::Other { kind: "string or list", json: &["string", "array"], default: Some("\"tcp\"") },
            "`\"tcp\"`, `\"udp\"` or `[\"tcp\", \"udp\"]`.",
        ),
        Key::new(
            "mode",
            word::<Mode>(&[]),
            "`\"nat\"`: source and destination are rewritten, and nothing is needed of the backends. `\"dnat\"`: the \
             destination only, so that backends see their clients; they must route back through the balancer. `\"dsr\"`: \
             neither; backends have the VIP themselves, are neighbours of the balancer, and answer their clients past it. `\"ipip\"` and `\"gue\"`: the same of backends \
             wherever they are, in a tunnel, IP in IP or GUE. See [modes](modes.md).",
        ).plain(Place::Farm(field!(mode))),
        Key::new(
            "gue_port",
            number(1, 65_535, Some(GUE_PORT as i64)),
            "The port of UDP at which backends take packets in mode `gue`; no matter in the others.",
        ).plain(Place::Farm(field!(gue_port))),
        Key::new(
            "scheduler",
            word::<Scheduler>(&["least-latency"]),
            "Who gets a new connection. `\"maglev\"`: addresses and ports of client and VIP choose the backend, and a change \
             of the backends moves as few as possible. `\"weighted-round-robin\"`: the backends take turns. \
             `\"least-connections\"`: of two backends that are drawn, the one with fewer connections for its weight. \
             `\"source-hash\"`: the client's address alone chooses, so that all of its connections meet the same backend.",
        ).plain(Place::Farm(field!(scheduler))),
        Key::new(
            "affinity",
            TABLE,
            "A client keeps the backend that it had, for all its connections to the farm; see below.",
        )
        .absent("none"),
        Key::new("timeouts", TABLE, "How long a connection may be idle.").absent("see below"),
        Key::new("limits", TABLE, "How many may come.").absent("none; see below"),
        Key::new(
            "allow",
            list("prefix or list", &["string", "array"]),
            "Who may connect, as in `[\"10.0.0.0/8\", \"2001:db8::/32\"]`; with it, nobody else. See below.",
        )
        .absent("everyone"),
        Key::new("deny", list("prefix or list", &["string", "array"]), "Who may not connect. See below.").absent("nobody"),
        Key::new("enabled", Takes::Boolean(true), "A farm that is not enabled takes no traffic.").plain(Place::Farm(field!(enabled))),
        Key::new(
            "on_down",
            word::<OnDown>(&[]),
            "What happens to a backend's connections when it goes down. `\"cut\"`: they are ended, so that clients connect \
             anew. `\"keep\"`: those of TCP are left to end by themselves; a client that sends another SYN on one opens \
             anew. A sender of datagrams is led to another backend in any case.",
        ).plain(Place::Farm(field!(on_down))),
        Key::new(
            "when_all_down",
            word::<WhenAllDown>(&[]),
            "What a client meets when no backend is healthy. `\"refuse\"`: it is refused at once. `\"try-all\"`: it is sent \
             to any backend, in the hope that the checks are wrong.",
        ).plain(Place::Farm(field!(when_all_down))),
        Key::new(
            "echo",
            word::<Echo>(&[]),
            "When the VIPs answer `ping`. `\"up\"`: while a backend takes new connections. `\"always\"`: whatever becomes of them. \
             `\"never\"`. Where they do not answer they are silent, also if a VIP is an address of the host. A VIP of several farms \
             answers if one of them would have it.",
        ).plain(Place::Farm(field!(echo))),
        Key::new(
            "slow_start",
            duration(0, 0),
            "Over how long a backend that has recovered gets back its full weight. `\"0s\"`: at once.",
        ).plain(Place::Farm(field!(slow_start))),
        Key::new("passive", TABLE, "What the traffic itself says of the backends.").absent("see below"),
        Key::new(
            "on_change",
            list("list of words", &["string", "array"]),
            "A command that is told of every change of a backend's state; see below.",
        )
        .absent("none"),
        Key::new(
            "backend",
            list("list of tables", &["array"]),
            "See below. A farm without backends is valid, and down.",
        )
        .absent("none"),
        Key::new("check", list("list of tables", &["array"]), "See below.").absent("a TCP check"),
    ],
    later: &[
        ("redirect", "remove this farm; let the backends redirect to HTTPS"),
    ],
    elsewhere: &[],
};

pub static AFFINITY: Schema = Schema {
    title: "affinity",
    keys: &[
        Key::new(
            "by",
            Takes::Word { words: || vec!["source"], later: &[] },
            "What clients are told apart by. `\"source\"`: their address.",
        ),
        Key::new(
            "timeout",
            duration(1_000, 1_800_000),
            "How long after its last connection has ended a client still has its backend.",
        )
        .plain(Place::Affinity(field!(timeout))),
        Key::new(
            "prefix_v4",
            number(1, 32, Some(32)),
            "So many leading bits of an IPv4 address count: clients that have them in common are one. For `source-hash`, too.",
        )
        .plain(Place::Affinity(field!(prefix_v4))),
        Key::new("prefix_v6", number(1, 128, Some(128)), "The same for IPv6. A network has 64.")
            .plain(Place::Affinity(field!(prefix_v6))),
    ],
    later: &[],
    elsewhere: &[],
};

pub static TIMEOUTS: Schema = Schema {
    title: "timeouts",
    keys: &[
        Key::new("syn", duration(1, 10_000), "is opening (TCP): the handshake is not complete").plain(Place::Timeouts(field!(syn))),
        Key::new("established", duration(1, 7_440_000), "is established (TCP)").plain(Place::Timeouts(field!(established))),
        Key::new(
            "half_closed",
            duration(1, 240_000),
            "has been ended by one of its sides, and the other may go on; or had a reset that may be genuine, until its next \
             packet (TCP)",
        ).plain(Place::Timeouts(field!(half_closed))),
        Key::new(
            "fin",
            duration(1, 10_000),
            "is closed: by both sides, by a reset that is believed, or cut (TCP)",
        ).plain(Place::Timeouts(field!(fin))),
        Key::new("udp", duration(1, 120_000), "is UDP").plain(Place::Timeouts(field!(udp))),
    ],
    later: &[],
    elsewhere: &[],
};

pub static LIMITS: Schema = Schema {
    title: "limits",
    keys: &[
        Key::new(
            "connections",
            number(1, u32::MAX as i64 / 4, None),
            "Connections at a time, of all clients together. See below for what counts.",
        )
        .absent("as many as come"),
        Key::new(
            "new_per_second",
            number(1, RATE_MAX as i64, None),
            "New connections a second; after a pause a second's worth at once. One of TCP counts when its handshake is complete, \
             one of UDP with its first datagram.",
        )
        .absent("as many as come"),
        Key::new(
            "over",
            word::<Over>(&[]),
            "What becomes of more. `\"drop\"`: they get no answer, and clients of TCP try again after a second. `\"refuse\"`: they \
             are refused at once.",
        ).plain(Place::Limits(field!(over))),
    ],
    later: &[
        ("connections_per_source", "remove it; one client may have as many connections as the farm"),
    ],
    elsewhere: &[],
};

pub static PASSIVE: Schema = Schema {
    title: "passive",
    keys: &[
        Key::new(
            "suspect",
            Takes::Boolean(true),
            "A backend that leaves connections unanswered, resets them while they open, or accepts them and says nothing, is \
             checked at once and not at its next turn.",
        ).plain(Place::Passive(field!(suspect))),
        Key::new(
            "eject",
            Takes::Boolean(false),
            "One that leaves connections unanswered or resets them is taken out without waiting for a check, if several \
             clients bear it out; see below.",
        ),
        Key::new(
            "hold",
            duration(1_000, 10_000),
            "For how long it is out the first time; each time that follows soon doubles it. With `eject = true` only.",
        ),
        Key::new(
            "at_most",
            number(1, 100, Some(50)),
            "Never more than so many percent of the farm's backends are out for this reason. With `eject = true` only.",
        ),
    ],
    later: &[],
    elsewhere: &[],
};

pub static ON_CHANGE: Schema = Schema {
    title: "on_change",
    keys: &[
        Key::new("command", list("list of words", &["string", "array"]), "The program and its arguments.")
            .absent("required"),
        Key::new("user", Takes::Text { kind: "string", default: Some(USER) }, "Who runs it; never root."),
        Key::new("timeout", duration(10, 10_000), "When it is killed, with all that it has started."),
    ],
    later: &[],
    elsewhere: &[],
};

pub static BACKEND: Schema = Schema {
    title: "[[farm.backend]]",
    keys: &[
        Key::new(
            "name",
            text("string"),
            "Letters, digits and `.:_-`; 1 to 63 of them; unique in the farm.",
        )
        .absent("the first address"),
        Key::new(
            "address",
            list("address or list", &["string", "array"]),
            "One of each family that the farm's VIPs have, and none of another; in the modes `ipip` and `gue` one of either \
             family will do for both. Not a VIP of any farm; unicast, no loopback, no link-local.",
        )
        .absent("required"),
        Key::new("port", number(1, 65_535, None), "Where it is reached.").absent("the port that the client used"),
        Key::new(
            "weight",
            number(0, WEIGHT_MAX as i64, Some(1)),
            "Its share of new connections, beside the other backends' weights; 0 takes none.",
        ).plain(Place::Backend(field!(weight))),
        Key::new(
            "priority",
            number(0, u16::MAX as i64, Some(0)),
            "The backends with the lowest number among the healthy ones are used; those of higher numbers stand by.",
        ).plain(Place::Backend(field!(priority))),
    ],
    later: &[("limits", "remove it; the backend takes as many connections as it is given")],
    elsewhere: &[],
};
