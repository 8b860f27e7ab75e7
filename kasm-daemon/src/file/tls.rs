//! The table `[tls]`.

use std::path::PathBuf;

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem};

use super::Loader;
use crate::tls::{ClientCertificates, TlsSettings, inspect};

impl Loader<'_, '_> {
    /// The table, and all that it speaks of. `None` for what cannot be read, which has been noted then.
    pub(super) fn read_tls(&mut self, object: &JsonObject) -> Option<TlsSettings> {
        let mut fields = Fields::new(object);
        let certificate = self.path_of(&mut fields, "certificate");
        let certificate = fields.require(
            "certificate",
            certificate,
            "a PEM file with the certificate of the API, and those that issued it after it, as in \"api.pem\"",
        );
        let key = fields.value("key");
        if key.is_none() {
            let allowed = "required: where the certificate's key is kept, as in { file = \"api.key\" }";
            fields.problem(Problem::new("key", "nothing", allowed));
        }
        let authorities = self.path_of(&mut fields, "client_ca");
        let checkins_without = fields.boolean("checkins_without_certificate");
        if checkins_without.is_some() && fields.value("client_ca").is_none() {
            let allowed = "nothing without client_ca: no client is asked for a certificate";
            fields.problem(Problem::new("checkins_without_certificate", "a value", allowed));
        }
        let clients = authorities
            .map(|authorities| ClientCertificates { authorities, checkins_without: checkins_without.unwrap_or(false) });
        let before = self.report.count();
        self.finish(fields, "tls");
        let key = key.and_then(|value| self.read_source("tls.key", value));
        let settings = TlsSettings { certificate: certificate?, key: key?, clients };
        match inspect(&settings, &self.surroundings.environment, self.surroundings.now) {
            Ok(warnings) => warnings.into_iter().for_each(|warning| self.report.warn(warning.below("tls"))),
            Err(problems) => problems.into_iter().for_each(|problem| self.report.mistake(problem.below("tls"))),
        }
        (self.report.count() == before).then_some(settings)
    }

    fn path_of(&self, fields: &mut Fields<'_>, name: &'static str) -> Option<PathBuf> {
        let text = fields.text(name)?;
        if text.is_empty() || text.contains('\0') {
            fields.problem(Problem::new(name, "no path", "the path of a PEM file"));
            return None;
        }
        Some(self.folder.join(text))
    }
}
