//! A broken configuration never starts half a gateway; an empty one serves the page that says what to do next.

use hil_tests::{Daemon, cli, derd_binary, free_port};
use std::process::Command;

#[test]
fn check_lists_every_fault_and_run_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("derd.toml");
    std::fs::write(
        &file,
        format!(
            "[gateway]\ndata_dir = {:?}\n[site]\nmain_fus_a = 25\ntimezone = \"Mars/Olympus\"\n[[device]]\nid = \"pv\"\nkind = \"inverter\"\nprofile = \"sunspek\"\nlink = \"tcp://h:502\"\n",
            folder.path().join("data")
        ),
    )
    .unwrap();
    let path = file.display().to_string();
    let out = cli(&["check", "--config", &path], None);
    assert_eq!(out.code, Some(1));
    for says in [
        "site.main_fus_a = 25: unknown key, did you mean `main_fuse_a`",
        "site.timezone = Mars/Olympus",
        "did you mean `sunspec`",
    ] {
        assert!(out.stdout.contains(says), "{says} not in {}", out.stdout);
    }
    assert!(out.stderr.contains("3 faults"), "{}", out.stderr);
    let run = cli(&["run", "--config", &path, "--socket", &folder.path().join("s").display().to_string()], None);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("main_fuse_a"), "{}", run.stderr);
    assert!(!folder.path().join("data").exists(), "nothing was begun");
    assert_eq!(cli(&["chekc"], None).code, Some(2));
    for command in
        ["run", "demo", "check", "probe", "status", "set", "release", "history", "schedule", "profile", "password"]
    {
        let help = cli(&[command, "--help"], None);
        assert_eq!(help.code, Some(0));
        assert!(help.stdout.contains("Example:"), "{command} --help has no example");
    }
    assert!(cli(&["profile", "list"], None).stdout.contains("go-e/charger"));
    assert!(cli(&["profile", "show", "sunspec"], None).stdout.contains("title"));
    let nobody = cli(&["status", "--socket", "/nonexistent/derd.sock"], None);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.contains("does not answer") && nobody.stderr.contains("/nonexistent/derd.sock"),
        "{}",
        nobody.stderr
    );
}

#[test]
fn client_commands_need_no_certificates() {
    // A minimal Debian has no ca-certificates; the Unix socket has no use for them.
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(
        folder.path(),
        &format!("[gateway]\ndata_dir = {:?}\n[web]\nlisten = \"127.0.0.1:0\"\n", folder.path()),
    );
    let status = Command::new(derd_binary())
        .args(["status", "--json"])
        .env("DERD_SOCKET", daemon.socket())
        .env("SSL_CERT_FILE", "/nonexistent/ca.crt")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
fn a_taken_port_costs_the_page_and_nothing_else_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = format!("[gateway]\ndata_dir = {:?}\n[web]\nlisten = \"127.0.0.1:{port}\"\n", folder.path());
    let daemon = Daemon::start(folder.path(), &config);
    assert!(daemon.get("/healthz").contains("ok"), "the socket answers");
    assert!(daemon.log().contains("no page"), "{}", daemon.log());
    drop(taken);
    hil_tests::eventually("the page comes when the port is free", std::time::Duration::from_secs(15), || {
        let out = Command::new("curl").args(["-sS", &format!("http://127.0.0.1:{port}/healthz")]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).contains("ok")
    });
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn without_a_device_the_page_says_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(
        folder.path(),
        &format!("[gateway]\ndata_dir = {:?}\n[web]\nlisten = \"127.0.0.1:0\"\n", folder.path()),
    );
    let page = daemon.get("/");
    assert!(page.contains("/etc/derd/derd.toml") && page.contains("derd check"), "{page}");
    assert!(daemon.get("/healthz").contains("ok"));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn off_loopback_a_login_is_needed_and_other_sites_are_refused_on_loopback_too() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!("[gateway]\ndata_dir = {:?}\n[web]\nlisten = \"0.0.0.0:{port}\"\n", folder.path());
    let daemon = Daemon::start(folder.path(), &config);
    let curl = |args: &[&str], path: &str| {
        let out = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"])
            .args(args)
            .arg(format!("http://127.0.0.1:{port}{path}"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(curl(&[], "/healthz"), "200");
    assert_eq!(curl(&[], "/api/v1/status"), "401");
    let file = folder.path().join("derd.toml").display().to_string();
    let password = cli(&["password", "--config", &file], None).stdout.trim().to_owned();
    assert!(password.len() >= 16, "{password}");
    assert_eq!(curl(&["-u", &format!("owner:{password}")], "/api/v1/status"), "200");
    assert_eq!(curl(&["-u", "owner:wrong"], "/api/v1/status"), "401");
    let mode = Command::new("stat").args(["-c", "%a"]).arg(folder.path().join("web.password")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&mode.stdout).trim(), "600");
    // The Unix socket needs no password.
    assert!(daemon.try_status().is_some());
    assert_eq!(daemon.stop(), Some(0));

    let daemon = Daemon::start(folder.path(), &config.replace("0.0.0.0", "127.0.0.1"));
    assert_eq!(curl(&[], "/api/v1/status"), "200", "no login on loopback");
    assert_ne!(curl(&["-H", "Host: evil.example"], "/api/v1/status"), "200", "a foreign host");
    let post = ["-X", "POST", "-d", "{\"action\":\"idle\"}"];
    let json = ["-H", "Content-Type: application/json"];
    assert_eq!(curl(&post, "/api/v1/devices/x/command"), "415", "no JSON content type");
    let foreign = [&post[..], &json, &["-H", "Origin: http://evil.example"]].concat();
    assert_eq!(curl(&foreign, "/api/v1/devices/x/command"), "403", "another page's script");
    let own = format!("Origin: http://127.0.0.1:{port}");
    assert_eq!(curl(&[&post[..], &json, &["-H", &own]].concat(), "/api/v1/devices/x/command"), "404", "no such device");
    assert_eq!(daemon.stop(), Some(0));
}
