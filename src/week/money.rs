//! What the week costs, by a tariff with a price for each hour.

use super::script::wall;
use super::surroundings::{Dice, Stay};
use crate::model::{IntentKey, Order};
use crate::sim::house_tests::House;

/// Of power sold, EUR per kWh.
const EXPORT: f64 = 0.08;
/// Half a second, in hours.
const HOURS: f64 = 0.5 / 3600.0;
/// What a car keeps of what it takes.
const CAR_EFFICIENCY: f64 = 0.92;
/// Of an ordinary day, ct per kWh, by hour.
const DAY_CT: [f64; 24] = [
    19.0, 18.0, 17.0, 17.0, 18.0, 20.0, 26.0, 31.0, 30.0, 26.0, 22.0, 19.0, 18.0, 18.0, 20.0, 23.0, 27.0, 34.0, 40.0,
    42.0, 38.0, 31.0, 26.0, 22.0,
];

/// EUR per kWh by hour of the week and the day after.
#[derive(Debug, Clone)]
pub(super) struct Prices(Vec<f64>);

impl Prices {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xEC0);
        let mut made = Vec::new();
        for _ in 0..8 {
            let (level, spread) = (dice.between(0.9, 1.1), dice.between(0.8, 1.3));
            made.extend(
                DAY_CT.map(|ct| ((25.0 + (ct - 25.0) * spread) * level + dice.between(-1.0, 1.0)).round() / 100.0),
            );
        }
        Self(made)
    }

    pub(super) fn at(&self, second: usize) -> f64 {
        self.0[(second / 3600).min(self.0.len() - 1)]
    }

    pub(super) fn by_hour(&self) -> &[f64] {
        &self.0
    }

    /// As a document.
    pub(super) fn tariff(&self) -> String {
        let value = |(hour, price): (usize, &f64)| {
            format!(r#"{{"start":"{}","price":{price},"export":{EXPORT}}}"#, wall(hour * 3600))
        };
        let values: Vec<String> = self.0.iter().enumerate().map(value).collect();
        format!(r#"{{"id":"spot","kind":"tariff","currency":"EUR","values":[{}]}}"#, values.join(","))
    }
}

/// What this power of the grid costs in half a second, EUR.
fn cost(grid_w: f64, price: f64) -> f64 {
    grid_w / 1000.0 * HOURS * if grid_w > 0.0 { price } else { EXPORT }
}

/// One charger's account.
#[derive(Debug, Default, Clone)]
pub(super) struct CarAccount {
    /// What the charges with a deadline took, Wh; what they cost, and what they would have cost at once at full power, EUR.
    pub(super) wh: f64,
    pub(super) paid: f64,
    pub(super) at_once: f64,
    /// What the present car would still need, Wh, if it had begun at once, and with which power, W.
    left: (f64, f64),
    has_deadline: bool,
    /// Taken while the document that follows the sun held it, Wh, and how much of that came from the roof.
    pub(super) sunny: f64,
    pub(super) of_sun: f64,
}

/// The account of the house.
#[derive(Debug, Default)]
pub(super) struct Money {
    /// Of the grid, EUR.
    pub(super) cost: f64,
    pub(super) cars: [CarAccount; 2],
    /// While the price plan held it: bought and sold, Wh and EUR.
    pub(super) bought: (f64, f64),
    pub(super) sold: (f64, f64),
    /// What the battery saved in all, EUR.
    pub(super) saved: f64,
}

impl Money {
    pub(super) fn plugged(&mut self, car: usize, stay: &Stay) {
        let need = stay.capacity_wh * (1.0 - stay.soc_pct / 100.0) / CAR_EFFICIENCY;
        self.cars[car].left = (need, 16.0 * 230.0 * stay.phases as f64);
        self.cars[car].has_deadline = stay.full_by.is_some();
    }

    pub(super) fn half(&mut self, price: f64, house: &House, orders: Option<&[Order]>) {
        let (grid, battery) = (house.grid.total_w(), house.battery.power_w);
        self.cost += cost(grid, price);
        let saved = cost(grid + battery, price) - cost(grid, price);
        self.saved += saved;
        let is_by = |index: usize, plan: &str| {
            let order = orders.and_then(|o| o.get(index));
            matches!(order, Some(Order::Hold(s)) if matches!(s.cause(), IntentKey::Plan(id) if id.as_str() == plan))
        };
        if is_by(1, "trade") {
            let (side, sign) = if battery > 0.0 { (&mut self.sold, 1.0) } else { (&mut self.bought, -1.0) };
            side.0 += battery.abs() * HOURS;
            side.1 += sign * saved;
        }
        // As if there were no battery: what a car costs is its own.
        let bare = grid + battery;
        for (index, account) in self.cars.iter_mut().enumerate() {
            let draws = house.charger(index).total_w();
            let wh = draws * HOURS;
            if account.has_deadline {
                account.wh += wh;
                account.paid += cost(bare, price) - cost(bare - draws, price);
                let shadow = account.left.1.min(account.left.0 / HOURS);
                account.left.0 -= shadow * HOURS;
                account.at_once += cost(bare - draws + shadow, price) - cost(bare - draws, price);
            }
            if index == 1 && is_by(3, "sun") {
                account.sunny += wh;
                account.of_sun += (draws - grid.max(0.0) - battery.max(0.0)).clamp(0.0, draws) * HOURS;
            }
        }
    }

    pub(super) fn check(&self, seed: u64, days: usize, faults: &mut Vec<String>) {
        let per_kwh = |(wh, eur): (f64, f64)| eur * 1000.0 / wh.max(1.0);
        println!(
            "seed {seed}: money: {:.2} EUR for the week; battery bought {:.1} kWh at {:.3}, sold {:.1} kWh at {:.3}, saved {:.2} EUR in all",
            self.cost,
            self.bought.0 / 1000.0,
            per_kwh(self.bought),
            self.sold.0 / 1000.0,
            per_kwh(self.sold),
            self.saved
        );
        for (n, car) in self.cars.iter().enumerate() {
            println!(
                "seed {seed}: car{}: {:.1} kWh with a deadline for {:.2} EUR, {:.2} EUR at once; by the sun's plan {:.1} kWh, {:.0} % of it sun",
                n + 1,
                car.wh / 1000.0,
                car.paid,
                car.at_once,
                car.sunny / 1000.0,
                100.0 * car.of_sun / car.sunny.max(1.0)
            );
            // The evenings are dear: the cheapest hours must save a good part.
            if days >= 2 && car.paid > 0.8 * car.at_once {
                faults.push(format!("car{}: {:.2} EUR by price, {:.2} EUR at once", n + 1, car.paid, car.at_once));
            }
        }
        let car = &self.cars[1];
        if days >= 7 && (car.sunny < 10_000.0 || car.of_sun < 0.75 * car.sunny) {
            faults.push(format!("the sun gave {:.0} of {:.0} Wh that its plan took", car.of_sun, car.sunny));
        }
        let efficiency = 0.95 * 0.95;
        if days >= 2 && per_kwh(self.sold) * efficiency < 1.3 * per_kwh(self.bought) {
            faults.push(format!(
                "the battery bought at {:.3} and sold at {:.3}",
                per_kwh(self.bought),
                per_kwh(self.sold)
            ));
        }
        if days >= 7 && (self.bought.0 < 14_000.0 || self.sold.0 < 14_000.0) {
            faults.push(format!("the battery bought {:.0} Wh and sold {:.0} Wh", self.bought.0, self.sold.0));
        }
    }
}

/// The documents of the owner.
pub(super) fn plans(prices: &Prices) -> Vec<(&'static str, String)> {
    let charge = |id: &str, device: &str, deadline: &str, capacity: f64, power: f64, amps: f64| {
        format!(
            r#"{{"id":"{id}","device":"{device}","kind":"price","tariff":"spot","params":{{"deadline":"{deadline}","soc_pct":100,"capacity_wh":{capacity},"power_w":{power},"current_a":{amps}}}}}"#
        )
    };
    vec![
        ("spot", prices.tariff()),
        (
            "trade",
            r#"{"id":"trade","device":"battery","kind":"price","tariff":"spot","params":{"cheapest_hours":3,"dearest_hours":3,"charge_power_w":4000,"discharge_power_w":2500,"min_soc_pct":15,"max_soc_pct":90}}"#
                .to_owned(),
        ),
        // Two plans know nothing of each other: the owner leaves room at the fuse for both, and says what the first one gets.
        ("cheap1", charge("cheap1", "car1", "06:30", 60_000.0, 7_000.0, 16.0)),
        ("cheap2", charge("cheap2", "car2", "07:00", 12_000.0, 2_300.0, 10.0)),
        // It goes before the battery as soon as that is half full.
        ("sun", r#"{"id":"sun","device":"car2","kind":"solar","params":{"battery_above_soc_pct":50}}"#.to_owned()),
    ]
}
