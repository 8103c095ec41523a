//! The meter that most homes have, on a serial line: pymodbus serves the vendor's register table over Modbus RTU.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use hil_tests::{Daemon, Framing, ModbusPeer, SerialLine, cli, eventually, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Input registers of the vendor's table (float32, high word first), and what derd must make of them.
const TABLE: [(u16, f32, &str, f64); 16] = [
    (0x0000, 231.25, "voltage_l1_v", 231.25),
    (0x0002, 229.5, "voltage_l2_v", 229.5),
    (0x0004, 230.75, "voltage_l3_v", 230.75),
    (0x0006, 8.125, "current_l1_a", 8.125),
    (0x0008, 2.25, "current_l2_a", 2.25),
    (0x000A, 1.5, "current_l3_a", 1.5),
    (0x000C, -1850.5, "power_l1_w", -1850.5),
    (0x000E, 512.25, "power_l2_w", 512.25),
    (0x0010, 330.0, "power_l3_w", 330.0),
    (0x0034, -1008.25, "power_w", -1008.25),
    (0x0038, 2100.5, "apparent_power_va", 2100.5),
    (0x003C, -150.25, "reactive_power_var", -150.25),
    (0x003E, -0.5, "power_factor", -0.5),
    (0x0046, 50.0, "frequency_hz", 50.0),
    (0x0048, 5432.25, "energy_import_wh", 5_432_250.0),
    (0x004A, 1234.5, "energy_export_wh", 1_234_500.0),
];

/// The registers as a file for the server. The real meter answers 0 for those between.
fn registers(folder: &Path) -> PathBuf {
    let mut words = [0_u16; 0x50];
    for (address, value, _, _) in TABLE {
        let bits = value.to_bits().to_be_bytes();
        words[usize::from(address)] = u16::from_be_bytes([bits[0], bits[1]]);
        words[usize::from(address) + 1] = u16::from_be_bytes([bits[2], bits[3]]);
    }
    let text: Vec<String> = words.iter().map(|w| format!("{w:04x}")).collect();
    let file = folder.join("sdm630.hex.txt");
    std::fs::write(&file, format!("0: {}\n", text.join(" "))).unwrap();
    file
}

fn check_points(points: &Value) {
    for (address, _, point, expected) in TABLE {
        let read = points[point].as_f64().unwrap_or_else(|| panic!("no {point} in {points}"));
        assert!((read - expected).abs() < 1e-6, "{point} at {address:#06x} is {read} and should be {expected}");
    }
}

fn probe(link: &str) -> Value {
    let out = cli(&["probe", "--link", link, "--profile", "eastron/sdm630", "--json"], None);
    assert_eq!(out.code, Some(0), "{link}: {}{}", out.stdout, out.stderr);
    serde_json::from_str(&out.stdout).unwrap()
}

#[test]
fn probe_reads_the_meter_over_a_serial_line_a_serial_server_and_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let file = registers(folder.path());
    let rtu = ModbusPeer::start(&file, 1, Framing::Rtu);
    let tty = folder.path().join("ttyUSB0");
    let line = SerialLine::plug(&tty, &rtu);
    let found = probe(&format!("rtu://{}?baud=9600&parity=none&stop=1", tty.display()));
    assert_eq!((&found["kind"], &found["maker"]), (&"meter".into(), &"Eastron".into()));
    check_points(&found["points"]);
    line.unplug();
    check_points(&probe(&format!("rtu+tcp://127.0.0.1:{}", rtu.port()))["points"]);
    let tcp = ModbusPeer::start(&file, 1, Framing::Tcp);
    check_points(&probe(&format!("tcp://127.0.0.1:{}", tcp.port()))["points"]);

    let gone = cli(&["probe", "--link", &format!("rtu://{}", tty.display()), "--profile", "eastron/sdm630"], None);
    assert_eq!(gone.code, Some(1), "{}", gone.stdout);
    assert!(gone.stderr.contains("ttyUSB0"), "{}", gone.stderr);
}

#[test]
fn a_serial_adapter_that_was_pulled_out_comes_back_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let peer = ModbusPeer::start(&registers(folder.path()), 1, Framing::Rtu);
    let tty = folder.path().join("ttyUSB0");
    let line = SerialLine::plug(&tty, &peer);
    // The README's home, with its own device file.
    let config = format!(
        "[gateway]\nid = \"gw-1\"\ndata_dir = {:?}\n[site]\nname = \"Smith home\"\ntimezone = \"Europe/Berlin\"\n\
         [web]\nlisten = \"127.0.0.1:0\"\n[[device]]\nid = \"grid\"\nkind = \"meter\"\nrole = \"grid\"\n\
         profile = \"eastron/sdm630\"\nlink = \"rtu://{}?baud=9600&parity=none&stop=1\"\n",
        folder.path(),
        tty.display()
    );
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(Duration::from_secs(15));
    check_points(&daemon.device("grid")["points"]);
    line.unplug();
    let grid = wait_for("it is called offline", Duration::from_secs(20), || {
        Some(daemon.device("grid")).filter(|d| d["state"] == "offline")
    });
    assert!(grid["error"].as_str().is_some_and(|e| e.contains("ttyUSB0")), "{grid}");
    let _line = SerialLine::plug(&tty, &peer);
    eventually("it comes back by itself", Duration::from_secs(30), || daemon.device("grid")["state"] == "online");
    check_points(&daemon.device("grid")["points"]);
    assert_eq!(daemon.stop(), Some(0));
}
