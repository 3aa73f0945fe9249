//! A question that was asked before, made again and asked again.
//!
//! A gate is a pure function, so the same question has the same answer, and with the same runtime it costs the same fuel. What
//! shows that it is the same question is its digest, and not whoever made it again.

use sluice_gate_types::input::Question;
use sluice_gate_types::manifest::World;
use sluice_protocol::bundle::{Prepared, Source, Submission, assemble};
use sluice_protocol::digest::Digest;

use crate::circumstances::Circumstances;
use crate::domain::{BoundGate, digest_of_answer};
use crate::render::render;
use crate::trial::{self, Trial};
use crate::wire::Encoded;
use crate::{check, receipt, translate};

/// What a question is made from.
#[derive(Debug, Clone)]
pub struct Material {
    /// As submitted.
    pub submission: Submission,
    /// As read from it.
    pub source: Source,
    /// Contents of attachments by name, where they are text.
    pub attachments: Vec<(String, String)>,
    /// What was kept.
    pub circumstances: Circumstances,
}

/// A question, made again.
#[derive(Debug)]
pub struct Remade {
    question: Encoded,
    seen: sluice_gate_types::input::Bundle,
    /// Of the bundle that would run, for stages that come after it is made.
    pub bundle_sha256: Option<Digest>,
}

/// What came of asking it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Of the answer's one encoding.
    pub verdict_sha256: Digest,
    /// What it comes to, as receipts have it.
    pub verdict: &'static str,
    /// Fuel that was burned.
    pub fuel: u64,
    /// The runtime.
    pub runtime: String,
}

impl Material {
    /// The question that gates of this world were asked.
    ///
    /// # Errors
    ///
    /// Why it cannot be made, for people.
    pub fn remake(&self, world: World) -> Result<Remade, String> {
        let Circumstances {
            facts,
            job,
            plan,
            checks,
            findings,
        } = self.circumstances.clone();
        let sees_bundle = matches!(world, World::ScannerPlugin | World::PolicyPlugin);
        let prepared = if sees_bundle {
            render(&self.source, &self.submission.parameters, &plan)?
        } else {
            Prepared::default()
        };
        let bundle = assemble(&self.submission, &self.source, prepared);
        let digest = bundle.digest().map_err(|error| error.to_string())?;
        let seen = translate::bundle(&bundle, &self.attachments);
        let trial = Trial {
            submission: self.submission.clone(),
            source: self.source.clone(),
            arguments: Vec::new(),
            attachments: Vec::new(),
            facts,
            job,
            checks,
            findings,
        };
        let question: Question = trial::question(world, &trial, &seen);
        Ok(Remade {
            question: Encoded::new(&question).map_err(|error| error.to_string())?,
            seen,
            bundle_sha256: sees_bundle.then_some(digest),
        })
    }
}

impl Remade {
    /// The digest by which it is told from others.
    #[must_use]
    pub fn input_sha256(&self) -> Digest {
        Digest::from_bytes(self.question.sha256)
    }

    /// Asks the gate. Nothing is taken from memory, and nothing kept.
    pub async fn ask(&self, gate: &BoundGate) -> Replayed {
        let called = gate.call(&self.question).await;
        let (verdict_sha256, _) = digest_of_answer(&called.answer);
        let answer = check::check(called.answer, gate.manifest(), Some(&self.seen));
        Replayed {
            verdict_sha256: Digest::from_bytes(verdict_sha256),
            verdict: receipt::verdict(&answer),
            fuel: called.fuel,
            runtime: gate.runtime().to_owned(),
        }
    }
}
