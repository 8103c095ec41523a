//! Every fault at once, with key, value, reason and the nearest name.

use super::*;
use crate::profile::Catalogue;

fn faults(text: &str) -> Vec<String> {
    let profiles = Catalogue::load(&[]).unwrap();
    match check(Layers::from_text("test", text), &profiles) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

fn settings(text: &str) -> Settings {
    check(Layers::from_text("test", text), &Catalogue::load(&[]).unwrap()).unwrap()
}

const DEVICE: &str =
    "[[device]]\nid = \"pv\"\nkind = \"inverter\"\nprofile = \"sunspec\"\nlink = \"tcp://10.0.0.1:502\"\n";

#[test]
fn the_defaults_are_good_and_mean_no_device() {
    let s = settings("");
    assert!(s.devices.is_empty() && s.mqtt.is_empty());
    assert_eq!(s.web.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((s.store.retention.as_secs(), s.store.max_bytes), (30 * 86_400, 512 * 1024 * 1024));
    assert_eq!(s.store.commit_every.as_secs(), 60);
}

#[test]
fn the_commented_examples_are_good_too() {
    // What an installer gets by removing the comment signs must work, but for files that are not there.
    let text: String = DEFAULTS
        .lines()
        .map(|line| {
            let is_key = |l: &&str| l.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            line.strip_prefix("# ").filter(|l| is_key(l) || (l.starts_with('[') && l.ends_with(']'))).unwrap_or(line)
        })
        .filter(|line| {
            !line.contains("_file") && !line.starts_with('#') && (line.contains(" = ") || line.starts_with('['))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(faults(&text), Vec::<String>::new(), "{text}");
    let s = settings(&text);
    assert_eq!((s.devices.len(), s.mqtt.len(), s.links.len()), (4, 1, 1));
}

#[test]
fn all_faults_at_once() {
    let found = faults(
        "[site]\nnmae = \"x\"\nphases = 2\ntimezone = \"Europe/Berln\"\n[stroe]\nx = 1\n[store]\ncommit_every = \"soon\"\n\
         [[device]]\nid = \"PV\"\nkind = \"invertr\"\nprofile = \"sunspc\"\nlink = \"tcp:/x\"\nunit = 300\npol = \"1s\"\n\
         [[uplink]]\nkind = \"mqtt\"\nurl = \"http://x\"\nranks = [\"owner\"]\n",
    );
    for says in [
        "site.nmae = \"x\": unknown key, did you mean `name`",
        "site.phases = 2: must be 1 or 3",
        "site.timezone = Europe/Berln: unknown zone",
        "stroe: unknown key, did you mean `store`",
        "store.commit_every = soon: `soon` is not a duration",
        "device `PV`.id = PV: `PV` is not an id",
        "device `PV`.kind = invertr: must be one of inverter, battery, charger, meter, did you mean `inverter`",
        "device `PV`.profile = sunspc: unknown profile, did you mean `sunspec`",
        "device `PV`.link = tcp:/x",
        "device `PV`.unit = 300: must be a whole number from 0 to 255",
        "device `PV`.pol = \"1s\": unknown key, did you mean `poll`",
        "uplink number 1.url = http://x/: must begin with mqtt://",
        "uplink number 1.ranks = [\"owner\"]: must be a list",
    ] {
        assert!(found.iter().any(|f| f.contains(says)), "{says}\nnot in\n{}", found.join("\n"));
    }
    assert!(found.iter().all(|f| f.starts_with("test: ")), "{}", found.join("\n"));
}

#[test]
fn a_device_must_be_whole() {
    let found = faults("[[device]]\n");
    for key in ["id", "kind", "profile", "link"] {
        assert!(
            found.iter().any(|f| f.contains(&format!("device number 1.{key}: is missing"))),
            "{}",
            found.join("\n")
        );
    }
}

#[test]
fn no_fault_shows_a_secret() {
    let text = "[web]\npassword = \"geheim\"\nlisten = \"geheimer\"\n[[uplink]]\nkind = \"mqtt\"\npassword = \"geheim\"\n\
                api_key = \"geheim\"\nurl = \"mqtts://me:geheim@broker\"\n[[device]]\nid = \"a\"\n\
                link = \"tcp://me:geheim@10.0.0.1\"\n[device.control]\nclient_secret = \"geheim\"\n";
    let found = faults(text);
    assert!(!found.iter().any(|f| f.contains("geheim") && !f.contains("web.listen")), "{}", found.join("\n"));
    assert!(found.iter().any(|f| f.contains("web.password = (hidden): unknown key")), "{}", found.join("\n"));
    assert!(found.iter().any(|f| f.contains("such as 127.0.0.1:8080")), "{}", found.join("\n"));
}

#[test]
fn devices_must_fit_each_other_and_their_profiles() {
    let twice = format!("{DEVICE}{DEVICE}");
    assert!(faults(&twice)[0].contains("another device has this id"));
    // Also when the first of them has a fault of its own.
    let twice = format!("{}{DEVICE}", DEVICE.replace("inverter", "invertr"));
    assert!(faults(&twice).iter().any(|f| f.contains("another device has this id")), "{:?}", faults(&twice));
    let wrong_kind = DEVICE.replace("inverter", "charger");
    assert!(faults(&wrong_kind)[0].contains("profile `sunspec` is for:"), "{:?}", faults(&wrong_kind));
    let wrong_link = DEVICE.replace("tcp://10.0.0.1:502", "http://10.0.0.1");
    assert!(faults(&wrong_link)[0].contains("speaks Modbus"), "{:?}", faults(&wrong_link));
    let role = format!("{DEVICE}role = \"grid\"\n");
    assert!(faults(&role)[0].contains("only a meter"), "{:?}", faults(&role));
    let soc = format!("{DEVICE}[device.limits]\nmin_soc_pct = 90\nmax_soc_pct = 20\n");
    assert!(faults(&soc)[0].contains("must be below max_soc_pct"), "{:?}", faults(&soc));
}

#[test]
fn not_toml_names_the_line() {
    let found = faults("[site]\nname = \n");
    assert!(found[0].contains("line 2"), "{found:?}");
}

#[test]
fn files_add_up_and_the_environment_wins() {
    let folder = tempfile::tempdir().unwrap();
    let conf_d = folder.path().join("conf.d");
    std::fs::create_dir(&conf_d).unwrap();
    let main = folder.path().join("derd.toml");
    std::fs::write(&main, format!("[site]\nname = \"file\"\nphases = 1\n{DEVICE}")).unwrap();
    std::fs::write(conf_d.join("20.toml"), DEVICE.replace("pv", "pv2")).unwrap();
    std::fs::write(conf_d.join("10.toml"), "[site]\nname = \"conf.d\"\n").unwrap();
    std::fs::write(conf_d.join("ignored.txt"), "nonsense").unwrap();
    let profiles = Catalogue::load(&[]).unwrap();
    let load = |env: &[(&str, &str)]| {
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        check(Layers::load(&main, env.into_iter()), &profiles)
    };
    let s = load(&[]).unwrap();
    assert_eq!((s.site.name.as_str(), s.site.phases, s.devices.len()), ("conf.d", 1, 2));
    let s = load(&[("DERD__SITE__NAME", "env"), ("DERD_SOCKET", "x"), ("DERD__WEB__LISTEN", "127.0.0.1:9")]).unwrap();
    assert_eq!((s.site.name.as_str(), s.web.listen.port()), ("env", 9));
    let bad = load(&[("DERD__SITE__PHASES", "2")]).unwrap_err();
    assert_eq!(bad[0].to_string(), "environment DERD__SITE__PHASES: site.phases = 2: must be 1 or 3");
    std::fs::write(conf_d.join("30.toml"), DEVICE).unwrap();
    let bad = load(&[]).unwrap_err();
    assert!(bad[0].source.ends_with("30.toml") && bad[0].reason.contains("another device"), "{bad:?}");
}

#[test]
fn a_missing_file_is_a_fault_and_secrets_are_not_shown() {
    let profiles = Catalogue::load(&[]).unwrap();
    let missing = check(Layers::load("/nonexistent/derd.toml".as_ref(), std::iter::empty()), &profiles).unwrap_err();
    assert!(missing[0].to_string().contains("cannot be read"), "{missing:?}");
    let found = faults("[[uplink]]\nkind = \"mqtt\"\nurl = \"mqtt://user:hunter2@host\"\n");
    assert!(found[0].contains("use username and password_file") && !found[0].contains("hunter2"), "{found:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pw");
    std::fs::write(&file, "hunter2\n").unwrap();
    let s = settings(&format!(
        "[[uplink]]\nkind = \"mqtt\"\nurl = \"mqtt://host\"\nusername = \"u\"\npassword_file = {file:?}\n"
    ));
    assert_eq!(s.mqtt[0].password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{s:?}").contains("hunter2"));
}

#[test]
fn uplinks() {
    let s = settings(
        "[[uplink]]\nkind = \"mqtt\"\nurl = \"mqtt://host\"\ntelemetry_every = \"poll\"\nranks = [\"grid\", \"event\"]\n",
    );
    assert_eq!((s.mqtt[0].name.as_str(), s.mqtt[0].telemetry_every), ("mqtt", crate::uplink::Cadence::Poll));
    assert_eq!(s.mqtt[0].ranks, vec![crate::model::Rank::Grid, crate::model::Rank::Event]);
    assert!(faults("[[uplink]]\nkind = \"texture\"\n")[0].contains("must be one of mqtt"));
    let twice = "[[uplink]]\nkind = \"mqtt\"\nurl = \"mqtt://a\"\n";
    assert!(faults(&format!("{twice}{twice}"))[0].contains("another uplink has this name"));
    assert!(settings(&format!("{twice}enabled = false\n")).mqtt.is_empty());
}
