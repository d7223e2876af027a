//! `blind-relay audit`, as an operator and an auditor run it, beside a server that is at work.

mod blindness;
mod planted;
mod run;
mod surfaces;
