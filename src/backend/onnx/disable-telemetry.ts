// onnxruntime 1.30 collects usage events on Linux unless this variable is set before its first session. A worker thread's
// process.env is a copy that native code does not see, so a process that opens sessions on a worker sets it in its entry too.
process.env['ORT_DISABLE_TELEMETRY'] ??= '1'
