/// Draws indices by weight, each with one random number. (Vose, "A Linear Algorithm for Generating Random
/// Numbers with a Given Distribution", 1991.)
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[Column]>,
}

/// One index, or another in its place.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// Of 2^32 coins so many are for the column's own index.
    own: u64,
    other: u32,
}

impl Alias {
    /// `weights` are above 0, and there are fewer than 2^32.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut left: Vec<f64> = weights
            .iter()
            .map(|weight| weight / total * weights.len() as f64)
            .collect();
        let mut columns: Vec<_> = (0..weights.len())
            .map(|i| Column {
                own: 1 << 32,
                other: i as u32,
            })
            .collect();
        let (mut small, mut large): (Vec<_>, Vec<_>) =
            (0..left.len()).partition(|&i| left[i] < 1.0);
        while let (Some(one), Some(&other)) = (small.pop(), large.last()) {
            columns[one] = Column {
                own: (left[one] * 2_f64.powi(32)) as u64,
                other: other as u32,
            };
            left[other] -= 1.0 - left[one];
            if left[other] < 1.0 {
                large.pop();
                small.push(other);
            }
        }
        Self {
            columns: columns.into(),
        }
    }

    pub(super) fn draw(&self) -> usize {
        let random = fastrand::u64(..);
        let index = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let column = self.columns[index];
        if (random & 0xffff_ffff) < column.own {
            index
        } else {
            column.other as usize
        }
    }
}
