// The JavaScript examples of the model page; openai_examples.py runs them. Prints the responses as JSON.

import OpenAI from 'openai';
import fs from 'fs';

const [baseURL, apiKey, source] = process.argv.slice(2);
const model = 'stable-diffusion-3.5-medium';
const size = '1024x1024';
const prompt = 'A hand-painted wooden sign hanging above a cozy bakery that says "FRESH SOURDOUGH DAILY"';
const client = new OpenAI({ apiKey, baseURL });

const generation = await client.images.generate({ model, prompt, size });
const edit = await client.images.edit({
  model,
  image: fs.createReadStream(source),
  prompt: 'Add a starry night sky to this image',
  size,
});
const events = [];
for await (const event of await client.images.generate({ model, prompt, size, stream: true, partial_images: 2 })) {
  events.push(event);
}
console.log(JSON.stringify({ generation, edit, 'streamed generation': events }));
