//! Goldens of every built-in profile, from vendor tables and captures.

use super::*;

#[test]
fn the_built_in_profiles_load() {
    let catalogue = Catalogue::load(&[])
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
    assert!(catalogue.names().contains(&"go-e/charger"));
}
