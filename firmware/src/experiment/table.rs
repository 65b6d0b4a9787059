//! The matrix as a reader sees it at the end: a row for each method, a column for each hazard and
//! direction.

use super::{Cell, Direction, Hazard, Method};
use core::fmt;

/// Longest line in characters.
pub const WIDTH: usize = 100;

/// Characters in the first column: the longest name of a method.
const NAME: usize = 11;

/// Columns: one hazard has two directions, and one three.
const COLUMNS: usize = 13;

/// Every cell there is.
const CELLS: usize = COLUMNS * Method::ALL.len();

/// The cells of a run.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    cells: heapless::Vec<Cell, CELLS>,
}

impl Sheet {
    /// No cells.
    pub const fn new() -> Self {
        Self {
            cells: heapless::Vec::new(),
        }
    }

    /// Notes a cell, in the place of an earlier one.
    pub fn put(&mut self, cell: Cell) {
        match self
            .cells
            .iter_mut()
            .find(|other| other.is_same_place(&cell))
        {
            Some(earlier) => *earlier = cell,
            // There is room for every place.
            None => drop(self.cells.push(cell)),
        }
    }

    /// The cell of a place.
    fn get(&self, hazard: Hazard, method: Method, direction: Direction) -> Option<&Cell> {
        let here = |cell: &&Cell| {
            (cell.hazard, cell.method, cell.direction) == (hazard, method, direction)
        };
        self.cells.iter().find(here)
    }

    /// How many cells were seen by bytes, seen by structure, and cannot be seen here.
    pub fn counts(&self) -> [usize; 3] {
        use super::{How, Observed};

        let mut counts = [0; 3];
        for cell in &self.cells {
            counts[match cell.observed {
                Observed::Seen(_, How::Data) => 0,
                Observed::Seen(_, How::Structural) => 1,
                Observed::NotObservable => 2,
            }] += 1;
        }
        counts
    }

    /// How many places of the methods that this machine `has` no cell is noted for.
    pub fn missing(&self, has: impl Fn(Method) -> bool) -> usize {
        let of = |method| {
            columns().filter(move |&(hazard, way)| self.get(hazard, method, way).is_none())
        };
        let methods = Method::ALL.into_iter().filter(|&method| has(method));
        methods.flat_map(of).count()
    }

    /// Calls `line` with each line of the table.
    pub fn print(&self, mut line: impl FnMut(fmt::Arguments<'_>)) {
        line(format_args!("{}", fmt::from_fn(|f| self.heads(f))));
        for method in Method::ALL {
            line(format_args!("{}", fmt::from_fn(|f| self.row(method, f))));
        }
        line(format_args!(
            "ok right, no refused, old stale line, lost neighbour, page foreign, torn, open unguarded"
        ));
        line(format_args!(
            "/d by compared bytes, /s by structure, ? not observable here, - not run; > to device, < from it"
        ));
    }

    fn row(&self, method: Method, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:NAME$}", method.name())?;
        columns().try_for_each(|column @ (hazard, direction)| {
            let width = self.width(column);
            match self.get(hazard, method, direction) {
                Some(cell) => write!(f, "{:>width$}", cell.short().as_str()),
                None => write!(f, "{:>width$}", "-"),
            }
        })
    }

    fn heads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:NAME$}", "")?;
        columns().try_for_each(|column| {
            let width = self.width(column);
            write!(f, "{:>width$}", head(column).as_str())
        })
    }

    /// Characters in a column: a space and the widest text in it.
    fn width(&self, column: (Hazard, Direction)) -> usize {
        let (hazard, direction) = column;
        let cell = |method| self.get(hazard, method, direction);
        let cells = Method::ALL.into_iter().filter_map(cell);
        let widest = cells.map(|cell| cell.short().len()).max();
        1 + widest.unwrap_or_default().max(head(column).len())
    }
}

/// Each hazard in each of its directions.
fn columns() -> impl Iterator<Item = (Hazard, Direction)> {
    let of = |hazard: Hazard| hazard.directions().iter().map(move |&way| (hazard, way));
    Hazard::ALL.into_iter().flat_map(of)
}

/// The name of a column.
fn head((hazard, direction): (Hazard, Direction)) -> heapless::String<4> {
    let mark = match direction {
        Direction::ToDevice => ">",
        Direction::FromDevice => "<",
        Direction::Both => "",
    };
    let mut head = heapless::String::new();
    // A letter, two digits and a mark fit.
    let _ = fmt::write(&mut head, format_args!("H{}{mark}", hazard.number()));
    head
}
