// Compiles a Kaitai Struct description to Python: node compile_ksy.js MODULES KSY OUT_DIR
const [modules, ksy, out] = process.argv.slice(2);
const { createRequire } = require("module");
const load = createRequire(require("path").resolve(modules) + "/");
const fs = require("fs");
const compiler = load("kaitai-struct-compiler");
const yaml = load("js-yaml");
compiler
  .compile("python", yaml.load(fs.readFileSync(ksy, "utf-8")), null, false)
  .then((files) => {
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(`${out}/${name}`, text);
  })
  .catch((error) => {
    console.error(String(error));
    process.exit(1);
  });
