// SPDX-License-Identifier: GPL-2.0-or-later
//! See `qvm_template_fuzz::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| qvm_template_fuzz::run("build_oci", data));
