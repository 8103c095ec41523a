use super::*;

fn kind_of(id: &DeviceId) -> Option<DeviceKind> {
    match id.as_str() {
        "battery" => Some(DeviceKind::Battery),
        "charger" => Some(DeviceKind::Charger),
        _ => None,
    }
}

fn doc(body: &Value) -> PlanDoc {
    PlanDoc::parse(None, body.to_string().as_bytes(), kind_of, "Europe/Berlin").unwrap()
}
