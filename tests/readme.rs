//! What the README lists is what the program has.

use rollcall::telemetry;

const README: &str = include_str!("../README.md");

#[test]
fn every_metric_is_listed_with_its_meaning() {
    for metric in telemetry::ALL {
        let row = format!("| `{}` | {} |", metric.name, metric.help);
        assert!(README.contains(&row), "README.md lacks the row\n{row}");
    }
}
