//! Tests of the control plane through its public face, on both stores.

mod archives;
mod capacity;
mod clones;
mod crash;
mod crash_databases;
mod crash_leaving;
mod crash_rotation;
mod failover;
mod faulty;
mod fences;
mod isolation;
mod leaving;
mod mixed;
mod offboard;
mod onboard;
mod remains;
mod repair;
mod replicas;
mod rotation;
mod scan;
mod serving;
mod shelf;
mod stats;
mod status;
mod story;
mod world;
