//! The table of jobs.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lumenfall::Error;
use lumenfall::backend::Request;
use rusqlite::{Connection, OptionalExtension, Result, params};

pub(crate) struct Jobs(Mutex<Connection>);

pub(crate) struct Job {
    pub(crate) state: String,
    pub(crate) error: Option<String>,
    pub(crate) image: Option<Vec<u8>>,
}

impl Jobs {
    /// Opens the database. A job that was running when the service was killed may have been paid for, so it is not sent
    /// again.
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS jobs
                 (id INTEGER PRIMARY KEY, request TEXT NOT NULL, state TEXT NOT NULL, error TEXT, image BLOB);
             UPDATE jobs SET state = 'failed', error = 'the service was stopped; the request may have been billed'
                 WHERE state = 'running';",
        )?;
        Ok(Self(Mutex::new(connection)))
    }

    pub(crate) fn add(&self, request: &Request) -> Result<i64> {
        let json =
            serde_json::to_string(request).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let connection = self.connection();
        connection.execute("INSERT INTO jobs (request, state) VALUES (?, 'waiting')", [json])?;
        Ok(connection.last_insert_rowid())
    }

    /// Marks the oldest waiting job as running and returns it.
    pub(crate) fn start_next(&self) -> Result<Option<(i64, Request)>> {
        let connection = self.connection();
        let next = "UPDATE jobs SET state = 'running'
                    WHERE id = (SELECT min(id) FROM jobs WHERE state = 'waiting') RETURNING id, request";
        let row = connection.query_row(next, [], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).optional()?;
        let Some((id, json)) = row else { return Ok(None) };
        let request = serde_json::from_str(&json)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into()))?;
        Ok(Some((id, request)))
    }

    pub(crate) fn finish(&self, id: i64, image: Result<impl AsRef<[u8]>, Error>) -> Result<()> {
        let (state, error, image) = match &image {
            Ok(image) => ("finished", None, Some(image.as_ref())),
            Err(error) => ("failed", Some(error.to_string()), None),
        };
        let update = "UPDATE jobs SET state = ?, error = ?, image = ? WHERE id = ?";
        self.connection().execute(update, params![state, error, image, id]).map(drop)
    }

    pub(crate) fn get(&self, id: i64) -> Result<Option<Job>> {
        let query = "SELECT state, error, image FROM jobs WHERE id = ?";
        let job = |row: &rusqlite::Row<'_>| Ok(Job { state: row.get(0)?, error: row.get(1)?, image: row.get(2)? });
        self.connection().query_row(query, [id], job).optional()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
