//! The checks together, against a model: exactly the wrong calls are reported.

use super::*;
use proptest::prelude::*;

/// What a step of the property does to one of a few buffers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Map {
        kind: Kind,
        len: usize,
        direction: DirectionKind,
        checked: bool,
    },
    Look,
    Sync {
        offset: usize,
        len: usize,
        direction: DirectionKind,
        to: Sync,
    },
    Unmap {
        kind: Kind,
        len: usize,
        direction: DirectionKind,
        offset: u64,
    },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Single, Kind::Page])
}

fn direction() -> impl Strategy<Value = DirectionKind> {
    prop::sample::select(vec![ToDevice, FromDevice, Bidirectional])
}

fn length() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 64, 100, 128])
}

fn step() -> impl Strategy<Value = Step> {
    let to = prop::sample::select(vec![Sync::ForCpu, Sync::ForDevice]);
    let offset = prop::sample::select(vec![0, 0, 0, 1, 64]);
    prop_oneof![
        (kind(), length(), direction(), any::<bool>()).prop_map(
            |(kind, len, direction, checked)| Step::Map {
                kind,
                len,
                direction,
                checked
            }
        ),
        Just(Step::Look),
        (0_usize..130, length(), direction(), to).prop_map(|(offset, len, direction, to)| {
            Step::Sync {
                offset,
                len,
                direction,
                to,
            }
        }),
        (kind(), length(), direction(), offset).prop_map(|(kind, len, direction, offset)| {
            Step::Unmap {
                kind,
                len,
                direction,
                offset,
            }
        }),
    ]
}

/// What the model knows of a buffer that is mapped. A buffer is mapped once at a time, except to
/// see that the second map is found.
#[derive(Clone, Copy)]
struct Known {
    kind: Kind,
    len: usize,
    direction: DirectionKind,
    checked: bool,
}

/// The rules, said again without a table.
fn expected(known: &mut Option<Known>, room: bool, step: Step) -> Vec<Check> {
    let mut wrong = Vec::new();
    let mut add = |is_wrong: bool, check| wrong.extend(is_wrong.then_some(check));
    match (step, *known) {
        (
            Step::Map {
                kind,
                len,
                direction,
                checked,
            },
            None,
        ) => {
            add(!room, Check::OutOfEntries);
            *known = room.then_some(Known {
                kind,
                len,
                direction,
                checked,
            });
        }
        // The property does not map twice.
        (Step::Map { .. }, Some(_)) | (Step::Look, None) => {}
        (Step::Look, Some(mapped)) => {
            *known = Some(Known {
                checked: true,
                ..mapped
            });
        }
        (Step::Sync { .. }, None) => add(room, Check::SyncUnallocated),
        (Step::Sync { offset, .. }, Some(mapped)) if offset >= mapped.len => {
            add(room, Check::SyncUnallocated);
        }
        (
            Step::Sync {
                offset,
                len,
                direction,
                to,
            },
            Some(mapped),
        ) => {
            add(offset + len > mapped.len, Check::SyncOutside);
            if direction != mapped.direction {
                let to_cpu = to == Sync::ForCpu;
                match mapped.direction {
                    ToDevice => {
                        add(to_cpu, Check::SyncReadOnlyForCpu);
                        add(!to_cpu, Check::SyncDirection);
                    }
                    FromDevice => {
                        add(to_cpu, Check::SyncDirection);
                        add(!to_cpu, Check::SyncWriteOnlyForDevice);
                    }
                    Bidirectional => {}
                }
            }
            add(!mapped.checked, Check::ErrorUnchecked);
            *known = Some(Known {
                checked: true,
                ..mapped
            });
        }
        (Step::Unmap { offset, .. }, Some(_)) if offset != 0 => add(room, Check::FreeUnallocated),
        (Step::Unmap { .. }, None) => add(room, Check::FreeUnallocated),
        (
            Step::Unmap {
                kind,
                len,
                direction,
                ..
            },
            Some(mapped),
        ) => {
            add(kind != mapped.kind, Check::WrongFunction);
            add(len != mapped.len, Check::FreeSize);
            add(
                kind == mapped.kind && direction != mapped.direction,
                Check::FreeDirection,
            );
            add(!mapped.checked, Check::ErrorUnchecked);
            *known = None;
        }
    }
    wrong
}

proptest! {
    /// Random calls, right and wrong, on buffers that share no line: what is reported is what the
    /// rules find wrong, by kind and in no other case.
    #[test]
    fn exactly_the_wrong_calls_are_reported(
        steps in prop::collection::vec((0_usize..6, step()), 1..120),
    ) {
        const CAPACITY: usize = 4;
        let mut checker = checker(CAPACITY);
        let mut buffers = [None::<Known>; 6];
        let mut complete = true;
        for (index, step) in steps {
            let at = index as u64 * 4096;
            let live = buffers.iter().flatten().count();
            if matches!(step, Step::Map { .. }) && buffers[index].is_some() {
                continue;
            }
            // For a map, whether there is room; for the rest, whether all mappings are known.
            let room = if matches!(step, Step::Map { .. }) { live < CAPACITY } else { complete };
            let wrong = expected(&mut buffers[index], room, step);
            complete &= !wrong.contains(&Check::OutOfEntries);
            let found = match step {
                Step::Map { kind, len, direction, checked } => {
                    let call = call(kind, at, len, direction);
                    checker.map(NET, call, &Lent { checked, ..lent(&call) })
                }
                Step::Look => {
                    checker.look(NET, DmaAddr::new(BUS + at));
                    Reports::new()
                }
                Step::Sync { offset, len, direction, to } => {
                    checker.sync(NET, call(Kind::Single, at + offset as u64, len, direction), to)
                }
                Step::Unmap { kind, len, direction, offset } => {
                    checker.unmap(NET, call(kind, at + offset, len, direction))
                }
            };
            prop_assert_eq!(kinds(&found), wrong, "{:?}", step);
            prop_assert_eq!(checker.live(), buffers.iter().flatten().count());
            prop_assert_eq!(checker.is_complete(), complete);
        }
    }

    /// Random ranges of one page, by two devices that do not snoop: a map is reported if it shares
    /// a line with a mapping and one of the two is written, found by marking every line.
    #[test]
    fn exactly_the_lines_that_are_shared_are_reported(
        steps in prop::collection::vec((0_u64..1024, 1_usize..200, direction(), any::<bool>()), 1..60),
    ) {
        let mut checker = checker(32);
        let mut lines = std::collections::BTreeMap::<u64, Vec<(usize, bool)>>::new();
        let mut live = Vec::new();
        for (number, (at, len, direction, unmap)) in steps.into_iter().enumerate() {
            if live.len() == 32 || (unmap && !live.is_empty()) {
                let (call, number) = live.remove(at as usize % live.len());
                prop_assert_eq!(kinds(&checker.unmap(NET, call)), []);
                lines.values_mut().for_each(|line| line.retain(|mark| mark.0 != number));
                continue;
            }
            let writes = direction != ToDevice;
            let mut shared = false;
            for line in at / 64..=(at + len as u64 - 1) / 64 {
                let marks = lines.entry(line).or_default();
                shared |= marks.iter().any(|mark| mark.1 || writes);
                marks.push((number, writes));
            }
            let call = call(Kind::Single, at, len, direction);
            let found = checker.map(NET, call, &lent(&call));
            prop_assert_eq!(kinds(&found), if shared { vec![Check::Overlap] } else { vec![] });
            live.push((call, number));
        }
    }
}
