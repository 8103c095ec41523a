use super::super::load::profile;
use super::*;

const GOOD: &str = r#"
title = "A meter"
protocol = "modbus"
sources = ["its manual"]
[meter]
point = [{ point = "power_w", address = 1, type = "s16" }]
"#;

#[track_caller]
fn faults(text: &str, want: &[(&str, &str)]) {
    let got = profile("v/m", text).map(|p| p.name().to_owned()).unwrap_err();
    let got: Vec<_> = got.iter().map(|(k, r)| (k.as_str(), r.as_str())).collect();
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for ((key, reason), (want_key, part)) in got.iter().zip(want) {
        assert_eq!(key, want_key, "{got:#?}");
        assert!(reason.contains(part), "`{reason}` does not say `{part}`");
    }
}

#[test]
fn the_built_in_profiles_load_and_say_what_installers_need() {
    let catalogue = Catalogue::load(&[])
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
    let names =
        ["eastron/sdm630", "go-e/charger", "homewizard/p1", "shelly/3em", "shelly/pro-3em", "sunspec", "victron/gx"];
    assert_eq!(catalogue.names(), names);
    for name in names {
        let profile = catalogue.get(name).unwrap();
        assert!(!profile.title().is_empty() && !profile.sources().is_empty() && !profile.caveats().is_empty());
        for kind in profile.kinds() {
            assert!(profile.driver(&spec(name, *kind)).is_ok(), "{name} {kind}");
        }
    }
    assert_eq!(catalogue.get("sunspec").unwrap().transport(), Transport::Modbus);
    assert_eq!(catalogue.get("go-e/charger").unwrap().transport(), Transport::Http);
    assert_eq!(catalogue.get("eastron/sdm630").unwrap().pace().min_gap, Duration::from_millis(100));
    assert!(catalogue.get("nobody/nothing").is_none());
}

#[test]
fn all_faults_at_once_with_the_nearest_name() {
    faults(
        r#"
titel = "x"
protocol = "modbuz"
sources = []
"#,
        &[("title", "is missing"), ("protocol", "did you mean `modbus`?"), ("sources", "is missing")],
    );
    faults(
        r#"
title = "x"
protocol = "modbus"
sources = ["s"]
colour = "red"
[pace]
timeout = "0s"
min_gap = "soon"
[modbus]
max_read = 126
wordorder = "big"
[meter]
point = [
  { point = "powr_w", address = 70000, type = "u17" },
  { point = "power_w", address = 1, type = "s16", scale = 0 },
  { point = "power_w", address = 2, type = "s16", count = 2 },
  { point = "power_w", address = 2, type = "s16", min = 2, max = 1 },
  { point = "state", address = 3, type = "u16" },
  { point = "frequency_hz", address = 65535, type = "f32" },
]
"#,
        &[
            ("pace.min_gap", "is not a time"),
            ("pace.timeout", "longer than 0"),
            ("modbus.max_read", "a whole number from 1 to 125"),
            ("modbus.wordorder", "did you mean `word_order`?"),
            ("meter.point[0].point", "did you mean `power_w`?"),
            ("meter.point[0].address", "a whole number from 0 to 65535"),
            ("meter.point[0].type", "did you mean `u16`?"),
            ("meter.point[1].scale", "always be 0"),
            ("meter.point[2].count", "for strings only"),
            ("meter.point[3].min", "above max"),
            ("meter.point[3].point", "there twice"),
            ("meter.point[4].states", "is missing"),
            ("meter.point[5].address", "beyond the last register"),
            ("colour", "is not known"),
        ],
    );
}

#[test]
fn faults_of_each_part() {
    assert!(profile("v/m", GOOD).is_ok());
    assert!(profile("V/m", GOOD).is_err());
    faults("a = [", &[("", "is not TOML")]);
    faults(&GOOD.replace("[meter]", "[metre]"), &[("", "has no section"), ("metre", "did you mean `meter`?")]);
    faults(
        &GOOD.replace("[meter]", "[modbus]\nforbidden = [[0, 5]]\n[meter]"),
        &[("meter.point[0].address", "forbidden range 0 to 5")],
    );
    let state = r#"point = [{ point = "state", address = 1, type = "u16", states = { "1" = "chargin" } }]"#;
    let battery = format!("title = \"t\"\nprotocol = \"modbus\"\nsources = [\"s\"]\n[battery]\n{state}");
    faults(&battery, &[("battery.point[0].states", "did you mean `charging`?")]);
    let http = r#"
title = "t"
protocol = "http"
sources = ["s"]
[http.paths]
status = "status"
data = "/data"
[charger]
point = [{ point = "power_w", from = "dta", pointer = "power" }]
[charger.control]
set = "/set?x=1"
read = "nothing"
min_current_a = 0
max_current_a = 16
step_a = 1
current = { amp = 6 }
off = { frc = "no" }
"#;
    faults(
        http,
        &[
            ("http.paths", "begins with /"),
            ("charger.point[0].pointer", "begins with /"),
            ("charger.point[0].from", "did you mean `data`?"),
            ("charger.control.set", "no query"),
            ("charger.control.read", "not one of http.paths"),
            ("charger.control.min_current_a", "above 0"),
            ("charger.control.off", "is not a number"),
            ("charger.control.off", "sets nothing"),
            ("charger.control.release", "is missing"),
            ("charger.control.current", "no \"demand\""),
        ],
    );
    let sunspec = "title = \"t\"\nprotocol = \"sunspec\"\nsources = [\"s\"]\nkinds = [\"baterry\"]\n[sunspec]\nfunction = \"fc6\"";
    faults(sunspec, &[("kinds", "did you mean `battery`?"), ("sunspec.function", "not one of single, multiple")]);
}

#[test]
fn site_files_win_and_their_faults_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("eastron")).unwrap();
    std::fs::write(dir.path().join("eastron/sdm630.toml"), GOOD).unwrap();
    std::fs::write(dir.path().join("own.toml"), GOOD.replace("A meter", "Ours")).unwrap();
    std::fs::write(dir.path().join("README"), "no profile").unwrap();
    let dirs = [dir.path().join("absent"), dir.path().to_owned()];
    let catalogue = Catalogue::load(&dirs).unwrap();
    assert_eq!(catalogue.get("eastron/sdm630").unwrap().title(), "A meter");
    assert_eq!(catalogue.get("own").unwrap().title(), "Ours");
    std::fs::write(dir.path().join("bad.toml"), GOOD.replace("title", "titel")).unwrap();
    let faults = Catalogue::load(&dirs).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert!(faults[0].to_string().ends_with("bad.toml: title: is missing"), "{}", faults[0]);
}
