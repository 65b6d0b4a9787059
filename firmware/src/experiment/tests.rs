use super::*;
use crate::diagnosis::Flaw;

fn cell(hazard: Hazard, method: Method, direction: Direction, observed: Observed) -> Cell {
    Cell {
        hazard,
        method,
        direction,
        expected: Finding::Right,
        observed,
        evidence: Evidence::new(),
    }
}

#[test]
fn hazards_are_numbered_from_1_in_order() {
    for (number, hazard) in (1..).zip(Hazard::ALL) {
        assert_eq!(hazard.number(), number);
        assert!(!hazard.directions().is_empty());
    }
}

#[test]
fn a_line_has_every_key_scripts_read() {
    let mut stale = cell(
        Hazard::DirtyLine,
        Method::KmallocRaw,
        Direction::ToDevice,
        Observed::data(Finding::Stale),
    );
    stale.expected = Finding::Stale;
    assert_eq!(
        stale.to_string(),
        "experiment hazard=H1 method=kmalloc-raw direction=to-device expected=stale \
         observed=stale how=data evidence=\"\""
    );
    stale.observed = Observed::NotObservable;
    assert!(
        stale
            .to_string()
            .contains(" observed=unknown how=not-observable ")
    );
    stale.observed = Observed::structural(Finding::Refused);
    assert!(
        stale
            .to_string()
            .contains(" observed=refused how=structural ")
    );
}

#[test]
fn a_safe_way_that_fails_contradicts_and_a_lucky_wrong_one_does_not() {
    let right = |observed| {
        cell(
            Hazard::StaleLine,
            Method::Coherent,
            Direction::FromDevice,
            observed,
        )
        .contradicts()
    };
    assert!(!right(Observed::data(Finding::Right)));
    assert!(!right(Observed::structural(Finding::Right)));
    assert!(!right(Observed::NotObservable));
    assert!(right(Observed::data(Finding::Stale)));
    assert!(right(Observed::structural(Finding::Unguarded)));
    assert!(right(Observed::structural(Finding::Refused)));
    let wrong = Cell {
        expected: Finding::Stale,
        ..cell(
            Hazard::StaleLine,
            Method::KmallocRaw,
            Direction::FromDevice,
            Observed::data(Finding::Right),
        )
    };
    assert!(!wrong.contradicts());
}

#[test]
fn every_flaw_but_none_is_unsafe() {
    for flaw in [
        Flaw::StaleLine { lines: 1 },
        Flaw::LostNeighbour,
        Flaw::NeverRan,
        Flaw::WrongBusAddress { shift: None },
        Flaw::ForeignPage { pages: 1 },
        Flaw::Torn,
        Flaw::Unexplained,
    ] {
        assert!(!Finding::from(flaw).is_safe(), "{flaw:?}");
    }
    assert!(Finding::Right.is_safe() && Finding::Refused.is_safe());
    assert!(!Finding::Unguarded.is_safe());
}

/// Fills every place and looks at the table as a terminal shows it.
#[test]
fn a_full_table_fits_a_terminal_and_has_every_place_once() {
    let mut sheet = Sheet::new();
    let widest = Observed::data(Finding::Torn);
    for _ in 0..2 {
        for hazard in Hazard::ALL {
            for &direction in hazard.directions() {
                for method in Method::ALL {
                    // Of barriers nothing is ever seen.
                    let observed = match hazard {
                        Hazard::MissingBarrier => Observed::NotObservable,
                        _ => widest,
                    };
                    sheet.put(cell(hazard, method, direction, observed));
                }
            }
        }
    }
    assert_eq!(sheet.counts(), [84, 0, 7]);
    assert_eq!(sheet.missing(|_| true), 0);
    let mut lines = Vec::new();
    sheet.print(|line| lines.push(line.to_string()));
    assert!(
        lines.iter().all(|line| line.chars().count() <= WIDTH),
        "{lines:#?}"
    );
    let cells: usize = lines
        .iter()
        .map(|line| line.matches(" torn/d").count())
        .sum();
    assert_eq!(cells, 84);
    assert!(
        lines[0].contains("H1>") && lines[0].contains("H10<"),
        "{}",
        lines[0]
    );
}

#[test]
fn a_place_that_was_not_run_is_shown_as_such() {
    let mut sheet = Sheet::new();
    sheet.put(cell(
        Hazard::BeyondMask,
        Method::Cma,
        Direction::Both,
        Observed::NotObservable,
    ));
    let mut lines = Vec::new();
    sheet.print(|line| lines.push(line.to_string()));
    let cma = lines
        .iter()
        .find(|line| line.starts_with("cma-map"))
        .unwrap();
    assert_eq!(cma.matches('-').count(), 1 + 12);
    assert_eq!(cma.matches('?').count(), 1);
    assert_eq!(sheet.missing(|_| true), 91 - 1);
    assert_eq!(sheet.missing(|method| method == Method::Cma), 13 - 1);
    assert_eq!(sheet.missing(|method| method == Method::Pool), 13);
}

#[test]
fn a_crossover_stays() {
    let of = |cheaper: [bool; 3]| Crossover::of([64, 512, 4096].into_iter().zip(cheaper));
    assert_eq!(of([true; 3]), Crossover::AtMost(64));
    assert_eq!(of([false, true, true]), Crossover::Between(64, 512));
    assert_eq!(of([false, false, true]), Crossover::Between(512, 4096));
    assert_eq!(of([false; 3]), Crossover::Nowhere);
    // Larger sizes reverse it.
    assert_eq!(of([true, false, true]), Crossover::Between(512, 4096));
    assert_eq!(of([false, true, false]), Crossover::Nowhere);
    assert_eq!(Crossover::of([]), Crossover::Nowhere);
    assert_eq!(of([false, true, true]).to_string(), "between 64 and 512");
}
