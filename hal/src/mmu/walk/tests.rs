//! The tree against a model that knows nothing of tables: a map from page to frame.

use super::*;
use crate::addr::PAGE_SIZE;
use crate::layout::{COHERENT, VMALLOC};
use crate::mmu::kernel::scratch_mapper;
use crate::mmu::{Access, MapError};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Four 2 MiB stretches around a 1 GiB border, so that runs cross tables of both levels.
const STRETCH: usize = 2048;
const BASE: usize = VMALLOC.base.get() + (1 << 30) - (4 << 20);

type Model = BTreeMap<usize, (u64, Attributes)>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Map {
        page: usize,
        pages: usize,
        frame: u64,
        attributes: Attributes,
        largest: Level,
    },
    Unmap {
        page: usize,
        pages: usize,
    },
    Protect {
        page: usize,
        pages: usize,
        access: Access,
    },
}

/// Borders of tables and blocks more often than chance would have them.
fn page() -> impl Strategy<Value = usize> {
    prop_oneof![
        (0..4usize).prop_map(|block| block * 512),
        (0..4usize, 0..3usize).prop_map(|(block, near)| block * 512 + 511 - near),
        0..STRETCH,
    ]
}

fn pages() -> impl Strategy<Value = usize> {
    prop_oneof![1..4usize, Just(512), Just(1024), 500..530usize]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        Just(Access::ReadExecute),
        Just(Access::ReadOnly),
        Just(Access::ReadWrite)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let frame = prop_oneof![
        (0..16u64).prop_map(|block| 0x8_0000 + block * 512),
        0x8_0000..0x8_2000u64,
    ];
    let memory_type = (0..4usize).prop_map(|index| MemoryType::ALL[index]);
    let largest = prop_oneof![Just(Level::L1), Just(Level::L2), Just(Level::L3)];
    prop_oneof![
        4 => (page(), pages(), frame, memory_type, access(), largest).prop_map(
            |(page, pages, frame, memory_type, access, largest)| Step::Map {
                page, pages, frame, largest,
                attributes: Attributes::new(memory_type, access),
            }
        ),
        2 => (page(), pages()).prop_map(|(page, pages)| Step::Unmap { page, pages }),
        1 => (page(), pages(), access())
            .prop_map(|(page, pages, access)| Step::Protect { page, pages, access }),
    ]
}

fn va(page: usize) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE_SIZE)
}

/// The mapper's and the model's answer to a step must agree; splitting a block is the one refusal
/// the model cannot foresee, and it must be justified by a leaf that reaches over the border.
fn apply(mapper: &mut crate::mmu::KernelMapper, model: &mut Model, step: Step) {
    let whole =
        |model: &Model, page, pages| (page..page + pages).all(|page| model.contains_key(&page));
    let crossing = |mapper: &crate::mmu::KernelMapper, page: usize, pages: usize| {
        [va(page), va(page + pages)]
            .into_iter()
            .any(|border| mapper.leaf(border).is_some_and(|leaf| leaf.va != border))
    };
    match step {
        Step::Map {
            page,
            pages,
            frame,
            attributes,
            largest,
        } => {
            let start = PhysAddr::new(frame << 12);
            let frames = PhysRange::from_size(start, (pages * PAGE_SIZE) as u64).unwrap();
            let free = (page..page + pages).all(|page| !model.contains_key(&page));
            // SAFETY: the frames are never accessed.
            match unsafe { mapper.map(va(page), frames, attributes, largest) } {
                Ok(()) => {
                    assert!(free);
                    model.extend((0..pages).map(|n| (page + n, (frame + n as u64, attributes))));
                }
                Err(MapError::AlreadyMapped { .. } | MapError::BreakBeforeMake { .. }) => {
                    assert!(!free);
                }
                Err(error) => panic!("{error}"),
            }
        }
        Step::Unmap { page, pages } => {
            let split = crossing(mapper, page, pages);
            // SAFETY: as above.
            match unsafe { mapper.unmap(va(page), pages * PAGE_SIZE) } {
                Ok(_) => {
                    assert!(whole(model, page, pages) && !split);
                    model.retain(|other, _| !(page..page + pages).contains(other));
                }
                Err(MapError::NotMapped(_)) => assert!(!whole(model, page, pages)),
                Err(MapError::SplitsBlock { .. }) => assert!(split),
                Err(error) => panic!("{error}"),
            }
        }
        Step::Protect {
            page,
            pages,
            access,
        } => {
            let split = crossing(mapper, page, pages);
            // SAFETY: as above.
            match unsafe { mapper.protect(va(page), pages * PAGE_SIZE, access) } {
                Ok(()) => {
                    assert!(whole(model, page, pages) && !split);
                    for page in page..page + pages {
                        model.get_mut(&page).unwrap().1.access = access;
                    }
                }
                Err(MapError::NotMapped(_)) => assert!(!whole(model, page, pages)),
                Err(MapError::SplitsBlock { .. }) => assert!(split),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn flatten(leaves: impl Iterator<Item = Leaf>) -> Model {
    leaves
        .flat_map(|leaf| {
            (0..leaf.size / PAGE_SIZE).map(move |n| {
                let page = (leaf.va.get() - BASE) / PAGE_SIZE + n;
                let frame = (leaf.pa.get() >> 12) + n as u64;
                (page, (frame, leaf.attributes().unwrap()))
            })
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 32 }))]

    #[test]
    fn the_tree_agrees_with_a_page_model(steps in prop::collection::vec(step(), 1..40)) {
        let mut mapper = scratch_mapper(16);
        let mut model = Model::new();
        for step in steps {
            apply(&mut mapper, &mut model, step);
            prop_assert_eq!(&flatten(mapper.leaves(FIRST, LIMIT)), &model);
        }
        prop_assert_eq!(&flatten(mapper.runs(FIRST, LIMIT)), &model);
        for page in (0..STRETCH + 600).step_by(7) {
            let inside = va(page) + 0x123;
            let found = mapper.leaf(inside).and_then(|leaf| leaf.translate(inside));
            let expected = model.get(&page).map(|(frame, _)| PhysAddr::new((frame << 12) + 0x123));
            prop_assert_eq!(found, expected);
        }
    }
}

const WB_RW: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);
const WB_RX: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadExecute);
const NC_RW: Attributes = Attributes::new(MemoryType::NormalNonCacheable, Access::ReadWrite);

fn mapper_with(mappings: &[(VirtAddr, u64, usize, Attributes)]) -> crate::mmu::KernelMapper {
    let mut mapper = scratch_mapper(16);
    for &(va, pa, size, attributes) in mappings {
        let frames = PhysRange::from_size(PhysAddr::new(pa), size as u64).unwrap();
        // SAFETY: the tree is never used by hardware and the frames never accessed.
        unsafe { mapper.map(va, frames, attributes, Level::L1) }.unwrap();
    }
    mapper
}

#[test]
fn runs_end_where_anything_changes() {
    let page = PAGE_SIZE;
    let mapper = mapper_with(&[
        (va(0), 0x8000_0000, 2 * page, WB_RW),
        (va(2), 0x8000_2000, page, NC_RW),
        (va(3), 0x8000_8000, page, NC_RW),
        (va(5), 0x8000_9000, page, NC_RW),
    ]);
    let runs: Vec<_> = mapper
        .runs(FIRST, LIMIT)
        .map(|run| (run.va, run.size / page))
        .collect();
    assert_eq!(runs, [(va(0), 2), (va(2), 1), (va(3), 1), (va(5), 1)]);
    assert_eq!(mapper.runs(va(3), va(5)).count(), 1);
}

/// Each mapping alone is fine; together they are not.
#[test]
fn audits_judge_a_frame_over_all_its_mappings() {
    let text = (VMALLOC.base, 0x8000_0000, 4 * PAGE_SIZE, WB_RX);
    let clean = mapper_with(&[text, (va(0), 0x8000_4000, PAGE_SIZE, WB_RW)]);
    assert_eq!(clean.find_writable_and_executable(), None);
    assert_eq!(clean.find_mismatched_types(), None);

    let alias = (va(0), 0x8000_3000, PAGE_SIZE, WB_RW);
    let (writable, executable) = mapper_with(&[text, alias])
        .find_writable_and_executable()
        .unwrap();
    assert_eq!((writable.va, executable.va), (va(0), VMALLOC.base));

    let pool = (COHERENT.base, 0x8020_0000, 4 * PAGE_SIZE, NC_RW);
    let map = (va(0), 0x8000_0000, 0x20_1000, WB_RW);
    let (first, second) = mapper_with(&[map, pool]).find_mismatched_types().unwrap();
    assert_eq!(
        (first.memory_type(), second.memory_type()),
        (
            Some(MemoryType::NormalWriteBack),
            Some(MemoryType::NormalNonCacheable)
        )
    );

    let pool_frames = PhysRange::new(PhysAddr::new(0x8020_0000), PhysAddr::new(0x8020_4000));
    let mapper = mapper_with(&[map, pool]);
    let present = mapper.find_mapping_of(pool_frames, FIRST, COHERENT.base);
    assert_eq!(
        present.map(|leaf| leaf.pa),
        Some(PhysAddr::new(0x8020_0000))
    );
    let beyond = COHERENT.base + COHERENT.size;
    assert_eq!(mapper.find_mapping_of(pool_frames, beyond, LIMIT), None);
}
