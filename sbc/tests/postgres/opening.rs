//! What a test of the program begins with: a database of its own, and the program on it.

use crate::cluster::Cluster;
use crate::node::Program;

/// In what a beginning differs: by itself the database has the schema and no subscriber, and the configuration is the plain one.
#[derive(Default)]
pub(crate) struct Opening {
    more: String,
    replaced: Vec<(&'static str, String)>,
    sql: Option<&'static str>,
    is_empty: bool,
}

impl Opening {
    /// With a subscriber, USER, whose password is `secret`.
    pub(crate) fn with_subscriber() -> Self {
        let sql = Some("SELECT sbc_set_password('example.net', 'alice', 'secret')");
        Self { sql, ..Self::default() }
    }

    /// On a database without the schema.
    pub(crate) fn unmigrated() -> Self {
        Self { is_empty: true, ..Self::default() }
    }

    /// With more lines under `[limits]`, and tables behind it.
    pub(crate) fn configured(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self
    }

    /// With another text in place of one that the configuration has.
    pub(crate) fn replaced(mut self, old: &'static str, new: &str) -> Self {
        self.replaced.push((old, new.to_owned()));
        self
    }

    /// All but the running process. `None`, saying so, where PostgreSQL is not installed.
    pub(crate) fn made(self) -> Option<(Cluster, Program)> {
        let cluster = Cluster::start()?;
        let mut program = Program::new(&cluster.url("sbc_runtime"));
        for (name, user) in [("SBC_OWNER_URL", "sbc_owner"), ("SBC_OPERATOR_URL", "sbc_operator")] {
            program.environment.push((name.into(), cluster.url(user).into()));
        }
        program.configure(&self.more);
        let file = std::fs::read_to_string(program.file()).unwrap();
        let file = self.replaced.iter().fold(file, |file, (old, new)| file.replacen(old, new, 1));
        std::fs::write(program.file(), file).unwrap();
        if !self.is_empty {
            assert!(program.run("migrate").status.success());
        }
        self.sql.map(|sql| cluster.psql(sql));
        Some((cluster, program))
    }

    /// The same, and it takes requests.
    pub(crate) fn serving(self) -> Option<(Cluster, Program)> {
        let (cluster, mut program) = self.made()?;
        program.serve_all();
        Some((cluster, program))
    }
}
