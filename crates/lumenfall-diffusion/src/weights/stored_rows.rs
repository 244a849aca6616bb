//! The weight of a layer that stays in its file.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use lumenfall_kernels::{self as kernels, Format, Matrix, RowFactors, Weight};

use super::stored::Stored;
use crate::error::{Error, Result};

/// The weight of a linear layer that stays in its file: each thread reads the rows that it multiplies.
#[derive(Clone, Debug)]
pub(crate) struct StoredRows {
    stored: Arc<Stored>,
    format: Format,
    factors: Option<RowFactors>,
}

impl StoredRows {
    /// Returns the rows of a matrix, or nothing if its rows are not whole blocks of one format. The operating system then begins to
    /// read them.
    pub(super) fn new(stored: &Arc<Stored>) -> Result<Option<Self>> {
        let Some(format) = stored.format_of_rows() else { return Ok(None) };
        let factors = stored.factors()?;
        stored.check_finite(factors.as_ref().and_then(RowFactors::first_not_finite), 0)?;
        stored.read_ahead();
        Ok(Some(Self { stored: Arc::clone(stored), format, factors }))
    }

    /// Computes `out = x·Wᵀ`.
    pub(crate) fn multiply(&self, out: &mut [f32], x: Matrix<'_>, outputs: usize) -> Result<()> {
        let rows = Reading { weight: self, failure: Mutex::default() };
        kernels::linear(out, x, Weight::Rows(&rows), outputs);
        match rows.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                self.stored.checked.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// One product with a weight, and the first error that occurred.
struct Reading<'a> {
    weight: &'a StoredRows,
    failure: Mutex<Option<Error>>,
}

impl kernels::Rows for Reading<'_> {
    fn format(&self) -> Format {
        self.weight.format
    }

    fn factors(&self) -> Option<&RowFactors> {
        self.weight.factors.as_ref()
    }

    fn read(&self, first: usize, rows: &mut [u8]) {
        if let Err(error) = self.weight.stored.read_rows(first, rows) {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::super::container::Container;
    use super::super::write::{NewTensor, write_gguf, write_safetensors};
    use super::*;
    use crate::sampling::Generator;

    const INPUTS: usize = 512;
    const TOKENS: usize = 5;

    /// Writes matrices of 128, 64 and 5 rows in a format, and a vector of factors.
    fn write(path: &Path, format: Format) -> Container {
        let matrix = |rows| NewTensor { name: format!("{rows} rows"), shape: vec![rows, INPUTS], format, ones: false };
        let factors = NewTensor { name: "factors".into(), shape: vec![256], format: Format::F32, ones: false };
        let tensors = [matrix(128), matrix(64), matrix(5), factors];
        match format.block_values() {
            1 => write_safetensors(path, &tensors).unwrap(),
            _ => write_gguf(path, "sd3", &tensors).unwrap(),
        }
        Container::open_path(path).unwrap()
    }

    fn product(stored: &Arc<Stored>) -> Result<Vec<f32>> {
        let (x, outputs) = (Generator::new(3).normal(TOKENS * INPUTS), stored.shape[0]);
        let mut out = vec![f32::NAN; TOKENS * outputs];
        let rows = StoredRows::new(stored)?.unwrap();
        rows.multiply(&mut out, Matrix::row_major(&x, TOKENS, INPUTS, INPUTS), outputs).map(|()| out)
    }

    #[test]
    fn a_weight_in_its_file_has_the_product_of_a_weight_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        for format in [Format::F32, Format::F16, Format::Bf16, Format::F8E4m3, Format::Q8_0, Format::Q4K] {
            let Container { shard, tensors, .. } = write(&path, format);
            let (all, more, few) = (&tensors["128 rows"], &tensors["64 rows"], &tensors["5 rows"]);
            // The second has parts of tensors in another order, as those of fused projections, and factors.
            let joined = vec![more.rows(32, 32), all.rows(3, 100), few.clone()];
            for (parts, scale) in [(vec![all.clone()], vec![]), (joined, vec![tensors["factors"].rows(7, 137)])] {
                let stored = Arc::new(Stored::new(&shard, "w", parts, scale));
                let (x, outputs) = (Generator::new(3).normal(TOKENS * INPUTS), stored.shape[0]);
                let mut expected = vec![f32::NAN; TOKENS * outputs];
                let values = stored.read().unwrap();
                let x = Matrix::row_major(&x, TOKENS, INPUTS, INPUTS);
                kernels::linear(&mut expected, x, Weight::Values(&values), outputs);
                assert!(product(&stored).unwrap() == expected, "{}", format.name());
                assert!(stored.checked.load(Ordering::Relaxed));
            }
        }
    }

    #[test]
    fn an_error_names_the_file_or_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let Container { shard, tensors, .. } = write(&path, Format::F16);
        let stored = |rows: &str| Arc::new(Stored::new(&shard, "w", vec![tensors[rows].clone()], Vec::new()));
        let mut bytes = std::fs::read(&path).unwrap();
        let start = tensors["64 rows"].start as usize + 2 * (40 * INPUTS + 9);
        bytes[start..start + 2].copy_from_slice(&[0xff; 2]);
        std::fs::write(&path, bytes).unwrap();
        let (changed, others) = (stored("64 rows"), stored("128 rows"));
        let error = product(&changed).unwrap_err().to_string();
        assert!(error.contains("`w` contains a value that is not finite (element 20489)"), "{error}");
        assert!(!changed.checked.load(Ordering::Relaxed));
        assert!(product(&others).is_ok());

        let factors = &tensors["factors"];
        let scaled = Arc::new(Stored::new(&shard, "w", vec![tensors["128 rows"].clone()], vec![factors.rows(0, 128)]));
        assert!(product(&scaled).is_ok());
        let mut bytes = std::fs::read(&path).unwrap();
        let start = factors.start as usize + 4 * 7;
        bytes[start..start + 4].copy_from_slice(&[0xff; 4]);
        std::fs::write(&path, bytes).unwrap();
        let error = product(&scaled).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`w` contains a value that is not finite (element {})", 7 * INPUTS)),
            "{error}"
        );

        File::options().write(true).open(&path).unwrap().set_len(40_000).unwrap();
        let error = product(&others).unwrap_err();
        assert!(matches!(&error, Error::File { path: named, .. } if *named == path), "{error}");
    }
}
