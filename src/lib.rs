// SPDX-License-Identifier: GPL-2.0-or-later
//! Template manager for Qubes OS that runs outside dom0, in a management qube.
//!
//! Data moves in one straight line. Each stage is a type that can be made only from the stage before it:
//!
//! ```text
//! UpdateVm --download--> Spooled --verify--> Verified --payload--> Payload --root_image--> RootImage --import--> Volume
//! (untrusted)            (one fd,            (signer,              (entries)               (exact size           (ImportWithSize)
//!                         size-capped)        Nevra)                                        + Read)
//! ```
//!
//! Three rules make the line secure:
//!
//! 1. **One fd, never a path.** [`spool::Spooled`] owns an anonymous file; every later stage reads that descriptor.
//! 2. **Verdict before effect.** The signature over the RPM header, then the digest of the compressed payload that
//!    the signed header names; only then is anything decompressed, and only then is dom0 asked to change anything.
//! 3. **Hold back the end.** dom0 commits an import only when all announced bytes arrived; the last block is kept
//!    until the bytes that were imported have been hashed again and the archive has ended as it should.
//!
//! The UpdateVM, the mirrors, the package and the callers of our services are hostile until checked; dom0 is not.
//!
//! # Rooms
//!
//! | room | what |
//! |---|---|
//! | [`template`] | values: names, builds, offers; no I/O |
//! | [`repo`] | `.repo` files, repository keys, the wire format of search and download |
//! | [`spool`], [`verify`], [`payload`], [`root_image`], [`volume`] | the line, in order |
//! | [`update_vm`], [`admin`], [`qrexec`] | the other shore |
//! | [`confine`] | threads without rights, for bytes that nobody has judged or that only an archive reader understands |
//! | [`catalogue`], [`query_cache`], [`census`] | what repositories offer, asked once and kept a while; what is installed, read once |
//! | [`install`], [`download`], [`transaction`], [`post_install`], [`settings`], [`postprocess`], [`appmenus`] | putting templates in place, with a way back |
//! | [`list`], [`search`], [`remove`], [`switch`], [`adopt`], [`refresh`], [`ensure`], [`default`], [`repolist`], [`clean`], [`migrate`] | the other commands, one file or folder each |
//! | [`lock`], [`cancel`], [`report`], [`ledger`] | one change at a time, its end by a signal, what is said about it, and what became of each template |
//! | [`seen`], [`admission`] | what was seen of each template before; whether a sound package is let in |
//! | [`spelling`] | what may have been meant by a name that does not exist |
//! | [`state`] | what is remembered from one run to the next |
//! | [`delegate`] | services for other qubes: who may ask what, and the client for them |
//! | [`needs`] | what each command needs of dom0's policy |
//! | [`cli`] | what was typed, what is printed |
//! | [`service`] | the UpdateVM's side |
//! | [`build`] | the builder of images, packages and repositories |
//! | [`sandbox`] | a whole Qubes system in one directory, for trying and testing |
//! | [`fuzzing`] | the entrances of the fuzz targets |
//!
//! `cli` calls the use cases, these call the line and the other shore, and all of them speak in the values of
//! `template`; no arrow goes the other way. `service`, `build` and `sandbox` stand beside that and share `repo` and
//! `template`; the sandbox uses the builder for its demonstration, and the builder the line to read packages back.

pub mod admin;
pub mod admission;
pub mod adopt;
pub mod appmenus;
pub mod build;
pub mod cancel;
pub mod catalogue;
pub mod census;
pub mod checkpoint;
pub mod clean;
pub mod cli;
pub mod confine;
pub mod default;
pub mod delegate;
pub mod download;
pub mod ensure;
pub mod extras;
pub mod finalize;
pub mod fuzzing;
pub mod install;
pub mod io;
pub mod journal;
pub mod ledger;
pub mod list;
pub mod lock;
pub mod migrate;
pub mod needs;
pub mod payload;
pub mod post_install;
pub mod postprocess;
pub mod qrexec;
pub mod query_cache;
pub mod recover;
pub mod refresh;
pub mod remove;
pub mod repo;
pub mod repolist;
pub mod report;
pub mod root_image;
pub mod sandbox;
pub mod search;
pub mod seen;
pub mod service;
pub mod settings;
pub mod spelling;
pub mod spool;
pub mod state;
pub mod switch;
pub mod template;
pub mod transaction;
pub mod trust;
pub mod untrusted;
pub mod update_vm;
pub mod verify;
pub mod volume;
