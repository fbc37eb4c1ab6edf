#!/usr/bin/env node
// The command; bin/patina links here, because a Node before 20.10 does not run a file without an
// extension in a package of modules. Only syntax that an old Node reads too, so that it can say in
// one line that it is too old; everything else is in launch.js.
if (Number(process.versions.node.split(".")[0]) < 18) {
  console.error("patina needs Node 18 or newer to start; this is " + process.versions.node + ".");
  process.exitCode = 3;
} else {
  import("./launch.js")
    .then(function (launcher) {
      return launcher.launch(process.argv.slice(2));
    })
    .catch(function (error) {
      console.error(error);
      process.exitCode = 1;
    });
}
