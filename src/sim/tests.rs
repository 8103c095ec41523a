//! The home as a whole, over real sockets.

use super::*;
use crate::model::{Point, Timestamp};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use tokio_modbus::client::{Context, tcp};
use tokio_modbus::prelude::{ExceptionCode, Reader, Slave, Writer};

fn start(devices: usize) -> HomeHandle {
    let options = HomeOptions { scenario: Scenario::Steady, devices, ..HomeOptions::default() };
    Home::start(options, Clock::system()).unwrap()
}

fn address(home: &HomeHandle, id: &str) -> SocketAddr {
    home.device(id).unwrap().link.split_once("//").unwrap().1.parse().unwrap()
}

async fn connect(home: &HomeHandle, id: &str) -> Context {
    tcp::connect_slave(address(home, id), Slave(1)).await.unwrap()
}

fn get(address: SocketAddr, path: &str) -> serde_json::Value {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: go-e\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn modbus_over_a_real_socket() {
    let home = start(4);
    assert_eq!(home.devices().iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["pv", "battery", "charger", "grid"]);
    let mut pv = connect(&home, "pv").await;
    let mut second = connect(&home, "pv").await;
    assert_eq!(pv.read_holding_registers(40_000, 4).await.unwrap().unwrap(), [0x5375, 0x6E53, 1, 66]);
    assert_eq!(second.read_holding_registers(40_084, 1).await.unwrap().unwrap(), [6000]);
    let beyond = pv.read_holding_registers(39_999, 1).await.unwrap();
    assert_eq!(beyond, Err(ExceptionCode::IllegalDataAddress));
    let refused = pv.write_single_register(40_084, 0).await.unwrap();
    assert_eq!(refused, Err(ExceptionCode::IllegalDataValue));
    let limit = 40_070 + 52 + 28 + 32 + 46 + 5;
    pv.write_multiple_registers(limit, &[2500, 0, 60, 0, 1]).await.unwrap().unwrap();
    assert_eq!(second.read_holding_registers(limit, 5).await.unwrap().unwrap(), [2500, 0, 60, 0, 1]);
    assert_eq!(home.with_world(|w| w.pv[0].limit), Some(0.25));
    let mut stranger = tcp::connect_slave(address(&home, "pv"), Slave(7)).await.unwrap();
    assert_eq!(stranger.read_holding_registers(40_000, 2).await.unwrap(), Err(ExceptionCode::GatewayTargetDevice));
    home.stop();
}

#[tokio::test]
async fn a_device_vanishes_and_comes_back_on_its_port() {
    let home = start(4);
    for id in ["grid", "charger"] {
        let mut open = TcpStream::connect(address(&home, id)).unwrap();
        if id == "charger" {
            // a kept-alive connection that has been used
            write!(open, "GET /api/status?filter=car HTTP/1.1\r\nHost: go-e\r\n\r\n").unwrap();
            assert!(open.read(&mut [0; 1024]).unwrap() > 0);
        } else {
            let mut meter = connect(&home, id).await;
            assert!(meter.read_holding_registers(40_000, 2).await.unwrap().is_ok());
        }
        home.set_online(id, false).unwrap();
        home.set_online(id, false).unwrap();
        assert!(matches!(open.read(&mut [0; 64]), Ok(0) | Err(_)), "the connection is dropped");
        assert!(TcpStream::connect(address(&home, id)).is_err(), "{id} is gone");
        home.set_online(id, true).unwrap();
        home.set_online(id, true).unwrap();
        assert!(TcpStream::connect(address(&home, id)).is_ok(), "{id} is back");
    }
    let mut meter = connect(&home, "grid").await;
    assert!(meter.read_holding_registers(40_000, 2).await.unwrap().is_ok());
    assert_eq!(get(address(&home, "charger"), "/api/status?filter=car")["car"], 2);
    assert!(home.set_online("nosuch", true).is_err());
}

#[test]
fn the_charger_over_http_and_the_truth_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let options = HomeOptions { scenario: Scenario::Steady, truth: Some(path.clone()), ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    let charger = address(&home, "charger");
    assert_eq!(get(charger, "/api/set?amp=8")["amp"], true);
    assert!(get(charger, "/api/set?amp=33")["amp"].is_string());
    assert_eq!(get(charger, "/api/status?filter=amp,nosuch"), serde_json::json!({"amp": 8}));
    let truth = home.truth();
    home.stop();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let write = lines.iter().find(|line| line.get("write").is_some()).unwrap();
    assert_eq!((&write["device"], &write["write"]["path"]), (&"charger".into(), &"/api/set?amp=8".into()));
    let tick = &lines[0];
    assert!(tick["ts"].as_str().unwrap().parse::<Timestamp>().unwrap() <= truth.ts);
    assert_eq!(tick["devices"]["pv"]["power_w"].as_f64(), truth.num("pv", &Point::PowerW));
    assert_eq!((&tick["load_w"], &tick["devices"]["pv"]["state"]), (&850.into(), &"running".into()));
    assert_eq!(tick["devices"]["grid"]["voltage_l1_v"], 230.4);
}

#[test]
fn more_devices_are_in_balance_too() {
    let home = start(41);
    assert_eq!(home.devices().len(), 41);
    let truth = home.truth();
    let power = |id: &str| truth.num(id, &Point::PowerW).unwrap();
    let inverters: f64 = home.devices().iter().filter(|d| d.kind == DeviceKind::Inverter).map(|d| power(&d.id)).sum();
    let load = power("grid") + inverters + power("battery") - power("charger");
    assert!((load - truth.load_w).abs() < 1e-6);
    let meters = home.devices().iter().filter(|d| d.kind == DeviceKind::Meter && d.role.is_none());
    let (count, sum) = meters.fold((0, 0.0), |(n, sum), d| (n + 1, sum + power(&d.id)));
    assert!(count == 19 && sum > 0.0 && sum < truth.load_w, "{count} {sum}");
}

#[tokio::test]
async fn the_clock_moves_the_world() {
    let clock = Clock::manual(Timestamp::from_ms(1_800_000_000_000));
    let options = HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() };
    let home = Home::start(options, clock.clone()).unwrap();
    home.with_world(|w| w.plug_car(None));
    clock.advance(Duration::from_secs(3600));
    // real sockets and real ticks: wait for the tick that sees the hour
    while home.truth().ts < clock.now() {
        std::thread::yield_now();
    }
    assert_eq!(home.truth().text("charger", &Point::State), Some("unplugged"));
    assert!(home.with_world(|w| w.real_s()) >= 3600.0);
}
