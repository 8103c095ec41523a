//! Every pair of ranks, on every kind of device, in both orders of arrival, with every way in which the stronger one ends:
//! films written by a table.

use super::Film;
use crate::model::Rank;

/// A device, its values, two actions and what they become.
struct Kind {
    device: &'static str,
    see: &'static str,
    /// Of the weaker: action, update, demand, its own words.
    weak: [&'static str; 4],
    strong: [&'static str; 4],
}

const KINDS: [Kind; 3] = [
    Kind {
        device: "battery control max_charge=5000 max_discharge=5000",
        see: "power=0 soc=50",
        weak: ["charge power_w=1000", "active power_w=1000", "power -1000", "charges with 1.0 kW"],
        strong: ["discharge power_w=2000", "active power_w=2000", "power 2000", "discharges with 2.0 kW"],
    },
    Kind {
        device: "charger control can_a=16",
        see: "power=0 plugged",
        weak: ["set_max_current current_a=10", "active current_a=10", "amps 10", "may charge with at most 10 A"],
        strong: ["stop", "active", "off", "is paused"],
    },
    Kind {
        device: "inverter control rated=8000",
        see: "power=0",
        weak: ["set_power_limit power_w=3000", "active power_w=3000", "limit 3000", "produces at most 3.0 kW"],
        strong: ["auto", "active", "release", "runs in its own mode"],
    },
];

/// How the stronger one leaves.
const ENDS: [(&str, &str); 3] =
    [("for=20", ""), ("for=300", "withdraw strong dev"), ("for=300", "outcome strong failed")];

fn film(kind: &Kind, low: Rank, high: Rank, is_weak_first: bool, (lasts, leaves): (&str, &str)) -> String {
    let ([w_does, w_update, w_demand, w_says], [s_does, s_update, s_demand, s_says]) = (kind.weak, kind.strong);
    let weak = |n: u8| format!("cmd weak dev {w_does} rank={low} n={n} for=100\n");
    let strong = |n: u8| format!("cmd strong dev {s_does} rank={high} n={n} {lasts}\n");
    let w_holds =
        format!("expect dev {w_demand} by weak then release\nwhy dev wins weak\nsays dev \"dev {w_says}: \"\n");
    let s_holds = format!(
        "expect dev {s_demand} by strong then release\nwhy dev wins strong\nsays dev \"dev {s_says}: \"\nwhy dev limits 0\n"
    );
    let waits = format!("update weak suspended\nwhy dev waits weak {high}\n");
    let mut text = format!("device dev {}\nat 0\nsee dev {}\nexpect dev free\nwhy dev nobody\n", kind.device, kind.see);
    if is_weak_first {
        text += &format!("at 1\n{}update weak {w_update}\n{w_holds}", weak(1));
        text += &format!("at 2\n{}update strong {s_update}\n{waits}{s_holds}", strong(2));
    } else {
        text += &format!("at 1\n{}update strong {s_update}\n{s_holds}", strong(1));
        text += &format!("at 2\n{}{waits}{s_holds}", weak(2));
    }
    // The weaker goes on as it was when the stronger is gone, and its own end stays.
    text +=
        &format!("run 17\n{s_holds}quiet\nat 25\nsee dev {}\n{leaves}\nupdate weak {w_update}\n{w_holds}", kind.see);
    let end = if is_weak_first { 101 } else { 102 };
    text += &format!("at {}\nsee dev {}\n{w_holds}quiet\n", end - 1, kind.see);
    text += &format!("at {end}\nsee dev {}\nexpect dev free\nwhy dev nobody\n", kind.see);
    text
}

#[test]
fn every_pair_of_ranks() {
    let mut pairs = 0;
    for (n, high) in Rank::ALL.iter().enumerate() {
        for low in &Rank::ALL[..n] {
            pairs += 1;
            for (kind, end) in KINDS.iter().flat_map(|k| ENDS.iter().map(move |e| (k, *e))) {
                for is_weak_first in [true, false] {
                    let text = film(kind, *low, *high, is_weak_first, end);
                    let name = format!("{low} under {high}, weak first {is_weak_first}, {end:?}\n{text}");
                    (0..2).for_each(|seed| Film::play(&name, &text, seed));
                }
            }
        }
    }
    assert_eq!(pairs, 28);
}

#[test]
fn the_weaker_ends_while_it_waits() {
    for (n, high) in Rank::ALL.iter().enumerate() {
        for low in &Rank::ALL[..n] {
            let text = format!(
                "device dev battery control max_charge=5000\nat 0\nsee dev power=0 soc=50\n\
                 cmd strong dev idle rank={high} n=1 for=100\ncmd weak dev charge rank={low} n=2 for=10\n\
                 update weak suspended\nwhy dev waits weak {high}\nsays dev \"Then it runs in its own mode again.\"\n\
                 at 10\nsee dev power=0 soc=50\nupdate weak ended\nexpect dev power 0 by strong\nwhy dev wins strong\n\
                 at 100\nsee dev power=0 soc=50\nexpect dev free\n"
            );
            (0..4).for_each(|seed| Film::play(&text, &text, seed));
        }
    }
}

/// Of two with one rank the one that was accepted later stays, whichever is heard of first; the other never comes back.
#[test]
fn equal_ranks() {
    for rank in Rank::ALL {
        for kind in &KINDS {
            let ([w_does, ..], [s_does, s_update, s_demand, _]) = (kind.weak, kind.strong);
            let old = format!("cmd old dev {w_does} rank={rank} n=1 for=100\n");
            let new = format!("cmd new dev {s_does} rank={rank} n=2 for=20\n");
            let holds = format!("expect dev {s_demand} by new then release\nwhy dev wins new\nupdate old superseded\n");
            let (head, see) = (format!("device dev {}\nat 0\nsee dev {}\n", kind.device, kind.see), kind.see);
            let tail = format!("at 30\nsee dev {see}\nexpect dev free\nwhy dev nobody\n");
            for middle in [
                format!("{old}at 1\n{new}{holds}update new {s_update}\n"),
                format!("{new}at 1\n{old}{holds}"),
                format!("{old}{new}{holds}update new {s_update}\n"),
            ] {
                let text = format!("{head}{middle}{tail}");
                (0..8).for_each(|seed| Film::play(&text, &text, seed));
            }
        }
    }
}

/// Plans are no commands: of one rank both stay, the newer document holds, and the older one comes back.
#[test]
fn equal_ranks_of_plans() {
    let slots = |action: &str, end: u8| {
        format!(
            r#"{{"device":"dev","kind":"slots","slots":[{{"start":"2026-11-20T12:00:00Z","end":"2026-11-20T12:00:{end}Z","action":"{action}"}}]}}"#
        )
    };
    let (old, new) = (slots("charge", 40), slots("idle", 20));
    let text = format!(
        "device dev battery control max_charge=5000\nat 0\nsee dev power=0 soc=50\nplan new n=2 {new}\nplan old n=1 {old}\n\
         expect dev power 0 by new\nwhy dev waits old later\nsays dev \"Then plan old goes on (charge).\"\n\
         at 20\nsee dev power=0 soc=50\nexpect dev power -5000 by old\nwhy dev wins old\n\
         at 40\nsee dev power=0 soc=50\nexpect dev free\nwhy dev nobody\n"
    );
    (0..8).for_each(|seed| Film::play(&text, &text, seed));
}
